//! The edge in a network namespace of its own.

use std::path::PathBuf;

use covey_overlay::underlay::overhead;
use covey_state::{
    Id,
    network::{Exposure, PublishMode},
};

use super::{ports::frontends, *};
use crate::{
    endpoint::{Endpoint, Host, Service},
    network::{alone::alone as in_namespace, reserve::ReserveError},
};

/// Runs this with the edge of a host that has no network yet.
fn alone(work: impl FnOnce(Edge) + Send) {
    in_namespace(|_| {
        work(Edge::open(None)?);
        Ok(())
    });
}

fn block(number: u8) -> EdgeBlock {
    EdgeBlock {
        v4: format!("100.64.{number}.0/24").parse().unwrap(),
        v6: format!("fd00:0:0:{number}::/64").parse().unwrap(),
    }
}

fn pair() -> Pair {
    Pair { v4: [100, 64, 0, 9].into(), v6: "fd00::9".parse().unwrap() }
}

fn port(mode: PublishMode) -> PublishedPort {
    PublishedPort { target: 80, published: 8080, mode, ..PublishedPort::default() }
}

/// A task of a service that publishes port 8080.
fn task() -> Endpoint {
    let exposure = Exposure { version: 1, ports: vec![port(PublishMode::Ingress)], ..Exposure::default() };
    Endpoint {
        service: Some(Service { id: Id::new(1), name: "web".into(), exposure }),
        names: Vec::new(),
        container: "task".into(),
        aliases: Vec::new(),
        addresses: vec![[100, 64, 2, 7].into()],
        host: Host { number: 2, vtep: [192, 0, 2, 2].into(), edge: block(2) },
        draining: false,
    }
}

fn behind(edge: &mut Edge, frontend: &Frontend) -> Option<IpAddr> {
    let found = edge.balancer.lookup(frontend).unwrap()?;
    found.backends.first().map(|backend| backend.address)
}

/// PRT-11
#[test]
fn a_port_of_a_container_stays_its_own_when_a_service_publishes_it() {
    alone(|mut edge| {
        let [own, published] = [PublishMode::Host, PublishMode::Ingress].map(port);
        let frontend = frontends(&own)[0];
        let held = edge.hold("box", &[own]).unwrap();
        edge.claim("box", &PathBuf::from("/nowhere"), pair(), false);
        edge.publish("box", &held).unwrap();
        let container = Some(IpAddr::from(pair().v4));
        assert_eq!(behind(&mut edge, &frontend), container);

        let key = (Id::new(2), "task".into());
        edge.balancer.put(&key, Some(task()));
        edge.settle().unwrap();
        assert_eq!(behind(&mut edge, &frontend), container);
        assert!(edge.refused[&frontend].why.contains("container box"), "{:?}", edge.refused);
        let taken = edge.hold("task", &[published]);
        assert!(matches!(taken, Err(ReserveError::Taken { port: 8080, .. })), "{taken:?}");

        edge.balancer.put(&key, None);
        edge.settle().unwrap();
        assert_eq!(behind(&mut edge, &frontend), container);
        assert!(edge.reserved.holds(&frontend));
        assert_eq!(edge.refused, BTreeMap::new());

        // The service has it as soon as the container is gone.
        edge.balancer.put(&key, Some(task()));
        edge.settle().unwrap();
        edge.detach("box").unwrap();
        assert_eq!(behind(&mut edge, &frontend), Some([100, 64, 2, 7].into()));
        assert_eq!(edge.refused, BTreeMap::new());
    });
}

/// CTR-03
#[test]
fn the_first_free_port_of_a_range_is_taken_behind_those_that_have_no_choice() {
    alone(|mut edge| {
        let one = |published, last| PublishedPort { published, last, ..port(PublishMode::Host) };
        let numbers = |held: Vec<PublishedPort>| {
            held.iter().map(|port| (port.published, port.last)).collect::<Vec<_>>()
        };
        let thief = std::net::TcpListener::bind("0.0.0.0:8002").unwrap();
        let first = edge.hold("first", &[one(8000, 8004), one(8000, 8004), one(8000, 0)]).unwrap();
        assert_eq!(numbers(first), [(8000, 0), (8001, 0), (8003, 0)]);
        let second = edge.hold("second", &[one(8000, 8004)]).unwrap();
        assert_eq!(numbers(second), [(8004, 0)]);
        let none = edge.hold("third", &[one(8000, 8004)]);
        assert!(matches!(none, Err(ReserveError::Taken { port: 8004, .. })), "{none:?}");
        drop(thief);
        assert_eq!(numbers(edge.hold("third", &[one(8000, 8004)]).unwrap()), [(8002, 0)]);
    });
}

#[test]
fn an_address_is_not_given_again_at_once_when_the_node_settles_anew() {
    alone(|mut edge| {
        edge.use_block(block(3));
        let first = edge.block.take().unwrap();
        edge.block.free(first);
        edge.use_block(block(3));
        assert_ne!(edge.block.take().unwrap(), first);
        // Addresses of another block are others anyway.
        edge.use_block(block(4));
        assert_eq!(edge.block.take().unwrap().v4, std::net::Ipv4Addr::new(100, 64, 4, 1));
    });
}

/// PRT-11
#[test]
fn a_port_that_a_container_of_before_cannot_have_back_is_tried_again() {
    alone(|mut edge| {
        let own = port(PublishMode::Host);
        let frontend = frontends(&own)[0];
        let thief = std::net::TcpListener::bind("0.0.0.0:8080").unwrap();
        edge.claim("box", &PathBuf::from("/nowhere"), pair(), false);
        edge.claim_ports("box", std::slice::from_ref(&own));
        edge.settle().unwrap();
        assert!(edge.refused[&frontend].why.contains("in use"), "{:?}", edge.refused);
        let told = edge.told.clone();
        assert_eq!(told.len(), 1, "one line for both families: {told:?}");
        edge.retry_refused();
        assert_eq!((edge.refused.contains_key(&frontend), &edge.told), (true, &told), "nothing new is said");
        assert_eq!(behind(&mut edge, &frontend), None);

        drop(thief);
        edge.retry_refused();
        edge.settle().unwrap();
        assert_eq!(edge.refused, BTreeMap::new());
        assert_eq!(behind(&mut edge, &frontend), Some(pair().v4.into()));
    });
}

/// The tables name the edge's device: both are gone.
#[test]
fn a_host_that_lost_its_device_and_its_tables_has_them_again_after_one_repair() {
    alone(|mut edge| {
        let host = Host { number: 1, vtep: [127, 0, 0, 1].into(), edge: block(1) };
        let place = Place { id: Id::new(1), host, port: 4789 };
        edge.join(&place, &[], &BTreeMap::new(), BTreeSet::new()).unwrap();
        assert_eq!(edge.examine().unwrap(), []);
        let loopback = 65_536 - overhead(host.vtep);
        assert_eq!(edge.device().map(|device| device.mtu), Some(loopback), "what the underlay lets pass");

        edge.balancer.set_place(mesh::Place::Nothing);
        edge.balancer.commit().unwrap();
        edge.kernel.apply(&Change::DeleteLink(LinkName::of_vni(edge::VNI))).unwrap();
        edge.desired.device.as_mut().unwrap().mtu = 1280;
        edge.balancer.set_place(edge.tables());
        edge.repair().unwrap();
        assert_eq!(edge.examine().unwrap(), []);
        assert_eq!(edge.device().map(|device| device.mtu), Some(loopback));
    });
}
