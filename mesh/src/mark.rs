//! Packet and connection marks: the one layout of the whole product.
//!
//! A mark is four bytes as they lie in memory, since the kernel copies them to and from link-layer addresses:
//! `[0xc0, n >> 16, n >> 8, n]` names the node of number `n`. The first byte tells our marks from those of others
//! on the same host; rules compare nothing else of a mark that they did not set themselves.

/// Largest node number that fits a mark.
pub const NODE_MAX: u32 = 0x00ff_ffff;

/// In front of every mark that names a node.
const NODE: u8 = 0xc0;

/// The mark of the node of this number, which is also the tail of its address on the edge link (`02:fd` in front).
/// Of a number above [`NODE_MAX`] only the last three bytes count.
pub const fn of_node(number: u32) -> [u8; 4] {
    let [_, a, b, c] = number.to_be_bytes();
    [NODE, a, b, c]
}

/// Value and mask that tell marks of nodes from all others, in host order: `ip rule … fwmark VALUE/MASK`.
pub const RULE: (u32, u32) = (u32::from_ne_bytes([NODE, 0, 0, 0]), u32::from_ne_bytes([0xff, 0, 0, 0]));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_nodes_are_told_from_others_by_the_rule() {
        let (value, mask) = RULE;
        for number in [1, 0x1234, NODE_MAX] {
            let mark = of_node(number);
            assert_eq!(u32::from_ne_bytes(mark) & mask, value);
            assert_eq!(u32::from_be_bytes([0, mark[1], mark[2], mark[3]]), number);
        }
        assert_ne!(0x4000 & mask, value, "kube-proxy's");
        assert_ne!(0x8000 & mask, value, "kube-proxy's");
    }
}
