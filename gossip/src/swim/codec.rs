//! SWIM's packets in our wire encoding: a header, then a count and the members, one behind the other.

use bytes::{Buf, BufMut, Bytes};
use serde::{Serialize, de::DeserializeOwned};

use crate::{config::DATAGRAM_BYTES_MAX, member::Peer};

/// Bytes of a header: up to three identities.
pub(crate) const HEADER_BYTES_MAX: usize = DATAGRAM_BYTES_MAX;
/// Bytes of one member.
const MEMBER_BYTES_MAX: usize = 128;

pub(crate) struct Codec;

/// A part of a packet was not written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("packet is full")]
    Full,
    #[error("packet part cannot be written")]
    Write(#[from] covey_wire::EncodeError),
    #[error("packet part cannot be read")]
    Read(#[from] covey_wire::DecodeError),
}

impl foca::Codec<Peer> for Codec {
    type Error = CodecError;

    fn encode_header(&mut self, header: &foca::Header<Peer>, buf: impl BufMut) -> Result<(), CodecError> {
        put(header, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<foca::Header<Peer>, CodecError> {
        take::<_, HEADER_BYTES_MAX>(buf)
    }

    fn encode_member(&mut self, member: &foca::Member<Peer>, buf: impl BufMut) -> Result<(), CodecError> {
        put(member, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<foca::Member<Peer>, CodecError> {
        take::<_, MEMBER_BYTES_MAX>(buf)
    }
}

fn put<T: Serialize>(value: &T, mut buf: impl BufMut) -> Result<(), CodecError> {
    let bytes = covey_wire::encode(value)?;
    if buf.remaining_mut() < bytes.len() {
        return Err(CodecError::Full);
    }
    buf.put_slice(&bytes);
    Ok(())
}

/// The library promises that the buffer is contiguous.
fn take<T: DeserializeOwned, const LIMIT: usize>(mut buf: impl Buf) -> Result<T, CodecError> {
    let (value, taken) = covey_wire::decode_prefix::<T, LIMIT>(buf.chunk())?;
    buf.advance(taken);
    Ok(value)
}

/// A ping that tells its receiver that it is under suspicion: if it lives, its answer carries its defence.
pub(crate) fn charge(me: &Peer, suspect: &foca::Member<Peer>) -> Bytes {
    let header = foca::Header {
        src: me.clone(),
        // The lowest says nothing about this node that its peers do not know.
        src_incarnation: 0,
        dst: suspect.id().clone(),
        message: foca::Message::Ping(0),
    };
    let mut packet = covey_wire::encode(&header).expect("ids and numbers always encode");
    packet.put_u16(1);
    packet.extend(covey_wire::encode(suspect).expect("ids and numbers always encode"));
    packet.into()
}

#[cfg(test)]
mod tests {
    use covey_wire::Id;
    use foca::Codec as _;

    use super::*;

    fn peer(id: u128) -> Peer {
        Peer {
            id: Id::new(id),
            incarnation: u64::MAX,
            address: "[2001:db8::1]:2377".parse().unwrap(),
            left: true,
        }
    }

    #[test]
    fn parts_of_a_packet_are_read_in_the_order_in_which_they_were_written() {
        let largest = foca::Member::new(peer(u128::MAX), u16::MAX, foca::State::Down);
        let header = foca::Header {
            src: peer(u128::MAX),
            src_incarnation: u16::MAX,
            dst: peer(u128::MAX - 1),
            message: foca::Message::PingReq { target: peer(u128::MAX - 2), probe_number: u8::MAX },
        };
        let mut packet = Vec::new();
        Codec.encode_header(&header, &mut packet).unwrap();
        Codec.encode_member(&largest, &mut packet).unwrap();
        Codec.encode_member(&foca::Member::alive(peer(1)), &mut packet).unwrap();
        packet.put_u8(7);

        let mut rest = packet.as_slice();
        assert_eq!(Codec.decode_header(&mut rest).unwrap(), header);
        assert_eq!(Codec.decode_member(&mut rest).unwrap(), largest);
        assert_eq!(Codec.decode_member(&mut rest).unwrap(), foca::Member::alive(peer(1)));
        assert_eq!(rest, [7]);
    }

    #[test]
    fn a_member_that_does_not_fit_leaves_no_trace() {
        let mut space = [0; 20];
        let mut buf = &mut space[..];
        let full = Codec.encode_member(&foca::Member::alive(peer(1)), &mut buf);
        assert!(matches!(full, Err(CodecError::Full)));
        assert_eq!(buf.len(), 20);
    }
}
