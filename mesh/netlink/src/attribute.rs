//! Netlink attributes (linux/netlink.h): length and number in host order, the value, padded to four bytes.

/// Bytes in front of a value.
const HEADER: usize = 4;
/// Set on attributes that hold attributes.
const NESTED: u16 = 0x8000;
/// The bits of a number.
const NUMBER: u16 = 0x3fff;

/// Attributes being written.
#[derive(Clone, Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// Adds a value.
    pub fn put(&mut self, number: u16, value: &[u8]) {
        let length = HEADER + value.len();
        self.0.extend((length as u16).to_ne_bytes());
        self.0.extend(number.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// Adds a number in network order, as nf_tables wants them.
    pub fn put_number(&mut self, number: u16, value: u32) {
        self.put(number, &value.to_be_bytes());
    }

    /// Adds a name, with the final zero.
    pub fn put_name(&mut self, number: u16, name: &str) {
        self.put(number, &[name.as_bytes(), &[0]].concat());
    }

    /// Adds attributes inside an attribute. They must fit: 65,531 bytes.
    pub fn nest(&mut self, number: u16, inside: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.put(number | NESTED, &[]);
        inside(self);
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// So many bytes have been written.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All that was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// The attributes in these bytes, number and value; ends where they cannot be read.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, number) = (pair(bytes, 0)?, pair(bytes, 2)?);
        let value = bytes.get(HEADER..length.into())?;
        bytes = bytes.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
        Some((number & NUMBER, value))
    })
}

/// The first attribute of this number.
pub fn find(bytes: &[u8], number: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == number).then_some(value))
}

/// The first attribute of this number, as a number in network order; zero if there is none.
pub fn find_number(bytes: &[u8], number: u16) -> u32 {
    let value = find(bytes, number).and_then(|value| value.try_into().ok());
    value.map_or(0, u32::from_be_bytes)
}

/// The first attribute of this number, as a name.
pub fn find_name(bytes: &[u8], number: u16) -> Option<String> {
    let name = find(bytes, number)?;
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    String::from_utf8(name.to_vec()).ok()
}

fn pair(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut written = Attributes::default();
        written.put(1, &[1, 2, 3]);
        written.nest(2, |inside| {
            inside.put_number(3, 0x0102_0304);
            inside.put_name(4, "covey");
        });
        let bytes = written.into_bytes();
        assert_eq!(find(&bytes, 1), Some(&[1, 2, 3][..]));
        let inside = find(&bytes, 2).unwrap();
        assert_eq!((find_number(inside, 3), find_name(inside, 4)), (0x0102_0304, Some("covey".to_owned())));
        assert_eq!((find(&bytes, 3), find_number(&bytes, 3)), (None, 0));
    }

    #[test]
    fn bytes_that_are_no_attributes_end_the_reading() {
        for damaged in [&[][..], &[1], &[3, 0, 1, 0], &[9, 0, 1, 0, 0, 0, 0, 0], &[0; 8]] {
            assert_eq!(attributes(damaged).count(), 0, "{damaged:?}");
        }
        assert_eq!(attributes(&[5, 0, 1, 0, 7]).collect::<Vec<_>>(), [(1, &[7][..])], "without padding");
    }
}
