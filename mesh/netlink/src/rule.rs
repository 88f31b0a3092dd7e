//! A masquerade as nf_tables expressions, and back.

use std::net::IpAddr;

use covey_mesh::masquerade::Masquerade;
use ipnet::IpNet;
use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables::{
    Bitwise, Cmp, DataAttribute, ExpressionAttribute, Expressions, ListAttribute, Meta, MetaKey, Operator,
    Payload, Register,
};

/// Longest prefix of a link's name, in bytes: the kernel's `IFNAMSIZ` without the final zero.
const PREFIX_MAX: usize = libc::IFNAMSIZ - 1;
/// Where the source address is in a header of IPv4 (RFC 791) and of IPv6 (RFC 8200), in bytes.
const SOURCE_OFFSET_V4: u32 = 12;
const SOURCE_OFFSET_V6: u32 = 8;
/// The mask-and-xor kind of a bitwise expression (`NFT_BITWISE_MASK_XOR` of linux/netfilter/nf_tables.h).
const MASK_XOR: u32 = 0;

/// The expressions of one rule.
pub type Rule = Vec<ListAttribute<ExpressionAttribute>>;

/// Whether a rule can say this: the block is a network, and the prefix could be one of a link's name.
pub fn is_sayable(masquerade: &Masquerade) -> bool {
    let prefix = masquerade.inside.as_bytes();
    masquerade.source == masquerade.source.trunc()
        && (1..=PREFIX_MAX).contains(&prefix.len())
        && !prefix.contains(&0)
}

/// `ip saddr SOURCE oifname != "INSIDE*" masquerade`, each expression's attributes in the order in which the kernel
/// gives them back.
pub fn encode(masquerade: &Masquerade) -> Rule {
    let (protocol, offset) = match masquerade.source {
        IpNet::V4(_) => (libc::NFPROTO_IPV4, SOURCE_OFFSET_V4),
        IpNet::V6(_) => (libc::NFPROTO_IPV6, SOURCE_OFFSET_V6),
    };
    let (network, mask) = (octets(masquerade.source.network()), octets(masquerade.source.netmask()));
    let length = network.len() as u32;
    let rule = [
        meta(MetaKey::Nfproto),
        compare(Operator::Equal, vec![protocol as u8]),
        Expressions::Payload(vec![
            Payload::DestinationRegister(Register::Reg1),
            Payload::Base(libc::NFT_PAYLOAD_NETWORK_HEADER as u32),
            Payload::Offset(offset),
            Payload::Len(length),
        ]),
        Expressions::Bitwise(vec![
            Bitwise::SourceRegister(Register::Reg1),
            Bitwise::DestinationRegister(Register::Reg1),
            Bitwise::Length(length),
            Bitwise::Op(MASK_XOR),
            Bitwise::Mask(DataAttribute::Value(mask)),
            Bitwise::Xor(DataAttribute::Value(vec![0; network.len()])),
        ]),
        compare(Operator::Equal, network),
        meta(MetaKey::Oifname),
        // Only as many bytes are compared as are given: this is what makes it a prefix.
        compare(Operator::NotEqual, masquerade.inside.clone().into_bytes()),
        Expressions::Other { expression_type: "masq".to_owned(), attributes: Vec::<DefaultNla>::new() },
    ];
    rule.map(ListAttribute::from).into()
}

/// What a rule says, if it is exactly one of ours.
pub fn decode(rule: &Rule) -> Option<Masquerade> {
    let [_, _, _, mask, network, _, inside, _] = rule.as_slice() else { return None };
    let source = IpNet::with_netmask(address(operand(network)?)?, address(operand(mask)?)?).ok()?;
    let inside = String::from_utf8(operand(inside)?.to_vec()).ok()?;
    let masquerade = Masquerade { source, inside };
    // Whatever else is in it, or in another way, makes it another rule.
    (encode(&masquerade) == *rule).then_some(masquerade)
}

fn meta(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::Key(key), Meta::DestinationRegister(Register::Reg1)])
}

fn compare(operator: Operator, with: Vec<u8>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(with)),
    ])
}

/// The constant of a comparison or a mask.
fn operand(expression: &ListAttribute<ExpressionAttribute>) -> Option<&[u8]> {
    let ListAttribute::Element(attributes) = expression else { return None };
    attributes.iter().find_map(|attribute| match attribute {
        ExpressionAttribute::Data(Expressions::Cmp(cmp)) => cmp.iter().find_map(|part| match part {
            Cmp::Data(DataAttribute::Value(bytes)) => Some(bytes.as_slice()),
            _ => None,
        }),
        ExpressionAttribute::Data(Expressions::Bitwise(bitwise)) => {
            bitwise.iter().find_map(|part| match part {
                Bitwise::Mask(DataAttribute::Value(bytes)) => Some(bytes.as_slice()),
                _ => None,
            })
        }
        _ => None,
    })
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masquerade(source: &str, inside: &str) -> Masquerade {
        Masquerade { source: source.parse().unwrap(), inside: inside.to_owned() }
    }

    #[test]
    fn every_length_of_prefix_is_read_as_it_was_written() {
        for length in 0..=32 {
            let source = IpNet::new("255.255.255.255".parse().unwrap(), length).unwrap().trunc();
            let written = Masquerade { source, inside: "cv".to_owned() };
            assert_eq!(decode(&encode(&written)), Some(written));
        }
        for length in 0..=128 {
            let source = IpNet::new("fdff:ffff::ffff".parse().unwrap(), length).unwrap().trunc();
            let written = Masquerade { source, inside: "a".repeat(PREFIX_MAX) };
            assert_eq!(decode(&encode(&written)), Some(written));
        }
    }

    #[test]
    fn a_rule_with_more_or_less_or_other_expressions_is_not_ours() {
        let ours = encode(&masquerade("100.64.1.0/24", "cv"));
        for place in 0..ours.len() {
            let mut less = ours.clone();
            less.remove(place);
            assert_eq!(decode(&less), None, "without expression {place}");
            let mut more = ours.clone();
            more.insert(place, ours[place].clone());
            assert_eq!(decode(&more), None, "with expression {place} twice");
        }
        for (place, other) in [
            (0, meta(MetaKey::L4Proto)),
            (1, compare(Operator::Equal, vec![libc::NFPROTO_IPV6 as u8])),
            (4, compare(Operator::NotEqual, vec![100, 64, 1, 0])),
            (4, compare(Operator::Equal, vec![100, 64, 1])),
            (4, compare(Operator::Equal, vec![100, 64, 1, 5])),
            (5, meta(MetaKey::Iifname)),
            (6, compare(Operator::Equal, b"cv".to_vec())),
            (6, compare(Operator::NotEqual, vec![0xff])),
            (7, Expressions::Other { expression_type: "redir".to_owned(), attributes: Vec::new() }),
        ] {
            let mut changed = ours.clone();
            changed[place] = other.into();
            assert_eq!(decode(&changed), None, "{:?}", changed[place]);
        }
    }

    #[test]
    fn only_networks_and_possible_names_can_be_said() {
        assert!(is_sayable(&masquerade("100.64.1.0/24", "cv")));
        assert!(is_sayable(&masquerade("fd00::/64", &"a".repeat(PREFIX_MAX))));
        assert!(!is_sayable(&masquerade("100.64.1.5/24", "cv")));
        assert!(!is_sayable(&masquerade("100.64.1.0/24", "")));
        assert!(!is_sayable(&masquerade("100.64.1.0/24", "c\0v")));
        assert!(!is_sayable(&masquerade("fd00::/64", &"a".repeat(PREFIX_MAX + 1))));
    }
}
