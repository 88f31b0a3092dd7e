//! Which specs a network may have, whatever else is there: of the cluster's networks, and of those of one host.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{EDGE_VNI, NetworkSpec, SUBNETS_MAX, SubnetSpec, VNI_MAX};
use crate::{
    command::Refusal,
    range::{is_usable, overlap},
};

/// Characters of a network's name: it is part of names inside it.
pub const NETWORK_NAME_MAX: usize = 63;
/// Networks that every host has, and another name of one.
const PREDEFINED: [&str; 6] = ["ingress", "bridge", "default", "host", "none", "docker_gwbridge"];
/// The option that asks for encryption.
pub const ENCRYPTED_OPTION: &str = "encrypted";
/// Smallest packets that each host must take (RFC 791, RFC 8200), and the largest there are, bytes.
const MTU_V4_MIN: u32 = 68;
const MTU_V6_MIN: u32 = 1280;
const MTU_MAX: u32 = 65_535;
/// What hosts keep for themselves, or what no host can have.
const SPECIAL: [(&str, &str); 7] = [
    ("0.0.0.0/8", "themselves"),
    ("127.0.0.0/8", "themselves"),
    ("169.254.0.0/16", "link-local addresses"),
    ("224.0.0.0/3", "multicast"),
    ("::/8", "themselves"),
    ("fe80::/10", "link-local addresses"),
    ("ff00::/8", "multicast"),
];

/// A spec that no network may have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkSpecError {
    /// Not a name of a network.
    #[error(
        "network name {0:?} is not valid: it has 1 to {NETWORK_NAME_MAX} of [a-zA-Z0-9_.-], a letter or digit first"
    )]
    Name(String),
    /// Every host has it.
    #[error("operation is not permitted on predefined {0} network: choose another name")]
    Predefined(String),
    /// What was asked to be secret must not cross a wire in plain.
    #[error("network {0} cannot be encrypted: not yet available; leave out --opt encrypted")]
    Encrypted(String),
    /// Packets too small or too large.
    #[error("mtu {mtu} is not valid: it must be {least} to {MTU_MAX}")]
    Mtu {
        /// Bytes that were asked for.
        mtu: u32,
        /// Bytes that there must be.
        least: u32,
    },
    /// Too many, with those that are chosen where none of a family is named.
    #[error("a network has at most {SUBNETS_MAX} subnets: not {0}")]
    Subnets(usize),
    /// Not the beginning of a block.
    #[error("invalid subnet {0}: it should be {trunc}", trunc = .0.trunc())]
    HostBits(IpNet),
    /// It has room for nobody.
    #[error("subnet {0} is too small: it has no room for a gateway and a task; use a shorter prefix")]
    TooSmall(IpNet),
    /// Its addresses mean something else on every host.
    #[error("subnet {net} overlaps with {special}, which hosts keep for {purpose}: choose another subnet")]
    Special {
        /// What was asked for.
        net: IpNet,
        /// What it meets.
        special: IpNet,
        /// What that is for.
        purpose: &'static str,
    },
    /// A family that the network does not have.
    #[error("subnet {0} is one of IPv6, which the network has not: create it with --ipv6")]
    NoIpv6(IpNet),
    /// Nobody in the subnet can have this address.
    #[error("gateway {gateway} is not an address for a host in subnet {net}: choose one inside, or none")]
    Gateway {
        /// What was asked for.
        gateway: IpAddr,
        /// In this subnet.
        net: IpNet,
    },
    /// Not the beginning of a block.
    #[error("invalid ip-range {0}: it should be {trunc}", trunc = .0.trunc())]
    RangeBits(IpNet),
    /// Not a part of the subnet.
    #[error("ip-range {range} is not inside subnet {net}")]
    Range {
        /// What was asked for.
        range: IpNet,
        /// Of this subnet.
        net: IpNet,
    },
    /// One address would mean two things.
    #[error("subnet {net} overlaps with subnet {other} of the same network")]
    Overlap {
        /// One.
        net: IpNet,
        /// One before it.
        other: IpNet,
    },
    /// No VXLAN id, or that of the edge.
    #[error("VXLAN id {0} is not valid: it must be {least} to {VNI_MAX}", least = EDGE_VNI + 1)]
    Vni(u32),
    /// Each subnet has its own.
    #[error("VXLAN id {0} is named twice")]
    VniTwice(u32),
}

impl From<NetworkSpecError> for Refusal {
    fn from(error: NetworkSpecError) -> Self {
        match error {
            NetworkSpecError::Predefined(_) => Self::Denied(error.to_string()),
            other => Self::Invalid(other.to_string()),
        }
    }
}

impl NetworkSpec {
    /// Whether a network may have this spec.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self) -> Result<(), NetworkSpecError> {
        let name = || self.name.clone();
        if !is_name(&self.name) {
            return Err(NetworkSpecError::Name(name()));
        }
        if PREDEFINED.contains(&self.name.as_str()) {
            return Err(NetworkSpecError::Predefined(name()));
        }
        if self.options.contains_key(ENCRYPTED_OPTION) {
            return Err(NetworkSpecError::Encrypted(name()));
        }
        let least = if self.ipv6 { MTU_V6_MIN } else { MTU_V4_MIN };
        if let Some(mtu) = self.mtu.filter(|mtu| !(least..=MTU_MAX).contains(mtu)) {
            return Err(NetworkSpecError::Mtu { mtu, least });
        }
        self.check_subnets()?;
        self.check_vnis()
    }

    fn check_subnets(&self) -> Result<(), NetworkSpecError> {
        let has = |v4| self.subnets.iter().any(|subnet| subnet.subnet.addr().is_ipv4() == v4);
        let count = self.subnets.len() + usize::from(!has(true)) + usize::from(self.ipv6 && !has(false));
        if count > SUBNETS_MAX {
            return Err(NetworkSpecError::Subnets(count));
        }
        for (index, subnet) in self.subnets.iter().enumerate() {
            check_subnet(subnet, self.ipv6)?;
            let net = subnet.subnet;
            if let Some(other) = self.subnets[..index].iter().find(|other| overlap(net, other.subnet)) {
                return Err(NetworkSpecError::Overlap { net, other: other.subnet });
            }
        }
        Ok(())
    }

    fn check_vnis(&self) -> Result<(), NetworkSpecError> {
        for (index, vni) in self.vnis.iter().enumerate() {
            if !(EDGE_VNI + 1..=VNI_MAX).contains(vni) {
                return Err(NetworkSpecError::Vni(*vni));
            }
            if self.vnis[..index].contains(vni) {
                return Err(NetworkSpecError::VniTwice(*vni));
            }
        }
        Ok(())
    }
}

fn is_name(text: &str) -> bool {
    let first = text.bytes().next();
    text.len() <= NETWORK_NAME_MAX
        && first.is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn check_subnet(subnet: &SubnetSpec, ipv6: bool) -> Result<(), NetworkSpecError> {
    let net = subnet.subnet;
    if net.max_prefix_len() - net.prefix_len() < 2 {
        return Err(NetworkSpecError::TooSmall(net));
    }
    if net != net.trunc() {
        return Err(NetworkSpecError::HostBits(net));
    }
    if net.addr().is_ipv6() && !ipv6 {
        return Err(NetworkSpecError::NoIpv6(net));
    }
    for (special, purpose) in SPECIAL {
        if let Some(special) = special.parse().ok().filter(|special| overlap(net, *special)) {
            return Err(NetworkSpecError::Special { net, special, purpose });
        }
    }
    if let Some(gateway) = subnet.gateway
        && !(net.contains(&gateway) && is_usable(net, gateway))
    {
        return Err(NetworkSpecError::Gateway { gateway, net });
    }
    match subnet.range {
        Some(range) if range != range.trunc() => Err(NetworkSpecError::RangeBits(range)),
        Some(range) if !net.contains(&range) => Err(NetworkSpecError::Range { range, net }),
        _ => Ok(()),
    }
}
