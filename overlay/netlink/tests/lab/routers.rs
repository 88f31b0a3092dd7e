//! Two hosts, each with a router of one network, and containers on them.

use std::net::IpAddr;

use covey_overlay::{
    mac::Mac,
    network::{Attachment, Desired, Subnet},
    object::{Change, LinkName},
    peer::Peer,
    underlay::overhead,
};
use covey_overlay_netlink::Stack;

use super::Lab;

// Containers: a link is ours where its name is made of so many hexadecimal digits.
pub const A: &str = "aaaaaaaaaaaaa";
pub const B: &str = "bbbbbbbbbbbbb";
pub const C: &str = "ccccccccccccc";
pub const D: &str = "ddddddddddddd";
pub const VNI: u32 = 4097;

pub fn local(host: u8, v6: bool) -> IpAddr {
    if v6 { [0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host)].into() } else { [192, 0, 2, host].into() }
}

pub fn peer(host: u8, v6: bool) -> Peer {
    Peer {
        mac: Mac::of_node([0, 0, 0, host]),
        underlay: local(host, v6),
        v4: format!("100.64.{host}.0/24").parse().unwrap(),
        v6: format!("fd00:c0:0:{host}::/64").parse().unwrap(),
    }
}

pub fn subnet(net: &str, gateway: &str, vni: Option<u32>) -> Subnet {
    Subnet { net: net.parse().unwrap(), vni, gateway: gateway.parse().unwrap() }
}

/// Two subnets of IPv4 and one of IPv6.
pub fn subnets() -> Vec<Subnet> {
    vec![
        subnet("10.0.1.0/24", "10.0.1.1", Some(VNI)),
        subnet("10.0.2.0/24", "10.0.2.1", Some(VNI + 1)),
        subnet("fd01::/64", "fd01::1", Some(VNI + 2)),
    ]
}

/// Where a container is and what addresses it has.
pub struct Place {
    pub host: u8,
    pub id: &'static str,
    pub addresses: Vec<IpAddr>,
}

/// An address of each family for each; `A` and `B` in one subnet, `C` in the other.
pub fn places() -> Vec<Place> {
    let place =
        |host, id, v4: [u8; 4], v6: &str| Place { host, id, addresses: vec![v4.into(), v6.parse().unwrap()] };
    vec![
        place(1, A, [10, 0, 1, 5], "fd01::5"),
        place(2, B, [10, 0, 1, 6], "fd01::6"),
        place(2, C, [10, 0, 2, 7], "fd01::7"),
    ]
}

/// The network of these containers as host `host` has it.
pub fn desired(lab: &Lab, host: u8, v6: bool, places: &[Place]) -> Desired {
    let mut desired = Desired {
        local: local(host, v6),
        port: 4789,
        mac: Mac::of_node([0, 0, 0, host]),
        mtu: 1500 - overhead(local(host, v6)),
        cached: true,
        subnets: subnets(),
        attachments: [].into(),
        peers: [].into(),
        endpoints: [].into(),
    };
    for place in places {
        if place.host == host {
            let attachment = Attachment {
                namespace: lab.text(place.id),
                inside: "eth1".to_owned(),
                addresses: place.addresses.clone(),
                default_route: false,
            };
            desired.attachments.insert(LinkName::of_container(place.id), attachment);
        } else {
            let number = u32::from(place.host);
            desired.peers.insert(number, peer(place.host, v6));
            desired.endpoints.extend(place.addresses.iter().map(|address| (*address, number)));
        }
    }
    desired
}

/// Opens the router of a host, from that host.
pub fn open(lab: &Lab, host: u8) -> Stack {
    let path = lab.path(&format!("r{host}"));
    let cache = Some(lab.cache(host));
    lab.within(&format!("h{host}"), || Stack::router(&path, cache)).unwrap()
}

pub fn repair(router: &mut Stack, desired: &Desired) -> Vec<Change> {
    router.mend(&desired.objects()).unwrap()
}

/// Hosts with routers and containers, all as wanted.
pub fn network(v6: bool) -> Option<(Lab, Vec<Stack>)> {
    let lab = Lab::new()?;
    lab.hosts(2);
    places().iter().for_each(|place| _ = lab.add(place.id));
    let routers = [1, 2].map(|host| {
        lab.add(&format!("r{host}"));
        let mut router = open(&lab, host);
        let wanted = desired(&lab, host, v6, &places());
        repair(&mut router, &wanted);
        assert_eq!(repair(&mut router, &wanted), []);
        router
    });
    Some((lab, routers.into()))
}
