//! The keeper in a network namespace of its own.

use std::{net::IpAddr, sync::mpsc};

use covey_state::network::{Exposure, PublishMode, Subnet};

use super::*;
use crate::{
    endpoint::{self, Host},
    network::alone::alone as in_namespace,
    refused::{Cause, Published},
};

const BOX: &str = "b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0";

/// Runs this with the keeper of a host that has no network yet.
fn alone(work: impl FnOnce(Keeper) + Send) {
    in_namespace(|folder| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let carried = watch::Sender::new(Carried::new());
        let mut keeper = Keeper::open(folder, Duration::from_secs(10), carried, runtime.handle().clone())?;
        keeper.begin(None);
        work(keeper);
        Ok(())
    });
}

/// A way out, one port of the host, and a network of this host.
fn wiring() -> Wiring {
    let subnet = Subnet {
        net: "172.18.0.0/24".parse().unwrap(),
        gateway: [172, 18, 0, 1].into(),
        range: None,
        vni: None,
    };
    let network = NetworkConfig {
        id: Id::new(7),
        name: "own".into(),
        internal: false,
        mtu: None,
        subnets: vec![subnet],
    };
    let attached = covey_state::network::Attached {
        network: Arc::new(network),
        addresses: vec![[172, 18, 0, 2].into()],
        aliases: Vec::new(),
        attachment: None,
    };
    let port =
        PublishedPort { target: 80, published: 8080, mode: PublishMode::Host, ..PublishedPort::default() };
    Wiring { edge: true, networks: vec![attached], ports: vec![port], ..Wiring::default() }
}

/// What is wrong in the kernel, of the edge and of all networks.
fn faults(keeper: &mut Keeper) -> Vec<crate::network::fault::Fault> {
    let mut faults = keeper.edge.examine().unwrap();
    keeper.carriers.values_mut().for_each(|carrier| faults.extend(carrier.examine().unwrap()));
    faults
}

/// CTR-11
#[test]
fn a_container_that_is_attached_twice_keeps_what_it_has() {
    alone(|mut keeper| {
        let attached = keeper.attach(BOX, "box", &wiring()).unwrap();
        assert_eq!((attached.addresses.len(), attached.ports.len()), (3, 1));
        let again = keeper.attach(BOX, "box", &wiring()).unwrap_err();
        assert_eq!(again.to_string(), format!("container {BOX} has its networks already"));
        assert_eq!(faults(&mut keeper), [], "all that it had is there");
        assert_eq!(keeper.wiring(BOX), Some(&wiring()));
        let pair = keeper.edge.addresses(BOX).map(|pair| IpAddr::from(pair.v4));
        assert!(pair.is_some_and(|address| attached.addresses.contains(&address)));

        keeper.detach(BOX).unwrap();
        assert_eq!(keeper.attach(BOX, "box", &wiring()).unwrap().ports.len(), 1, "its port came free");
        keeper.detach(BOX).unwrap();
    });
}

/// One that gets only a part of what it wants gets nothing.
#[test]
fn a_container_whose_networks_cannot_all_be_had_leaves_nothing() {
    alone(|mut keeper| {
        let mut wanted = wiring();
        let mut second = wanted.networks[0].clone();
        second.network = Arc::new(NetworkConfig { id: Id::new(8), ..NetworkConfig::clone(&second.network) });
        // No link can have such an address.
        second.addresses = vec!["ff02::9".parse().unwrap()];
        wanted.networks.push(second);
        keeper.attach(BOX, "box", &wanted).unwrap_err();
        assert!(keeper.containers.is_empty() && keeper.carriers.is_empty());
        assert!(!keeper.path(BOX).exists());
        assert_eq!(keeper.attach(BOX, "box", &wiring()).unwrap().ports.len(), 1, "its port came free");
        keeper.detach(BOX).unwrap();
    });
}

/// PRT-05, PRT-11
#[test]
fn a_published_port_that_this_host_cannot_take_is_told_until_it_is_free() {
    alone(|mut keeper| {
        let port = PublishedPort { target: 80, published: 8080, ..PublishedPort::default() };
        let published = Published::of_port(&port);
        let service = endpoint::Service {
            id: Id::new(1),
            name: "web".into(),
            exposure: Exposure { version: 1, ports: vec![port], ..Exposure::default() },
        };
        let edge = EdgeBlock { v4: "100.64.2.0/24".parse().unwrap(), v6: "fd00::/64".parse().unwrap() };
        let task = Endpoint {
            service: Some(service),
            names: Vec::new(),
            container: "task".into(),
            aliases: Vec::new(),
            addresses: vec![[100, 64, 2, 7].into()],
            host: endpoint::Host { number: 2, vtep: [192, 0, 2, 2].into(), edge },
            draining: false,
        };
        let told = |keeper: &mut Keeper| {
            keeper.tell_refused();
            keeper.refused.borrow().clone()
        };
        let [thief, other] = [8080, 9090].map(|port| std::net::TcpListener::bind(("::", port)).unwrap());
        keeper.edge.balancer.put(&(Id::new(2), "task".into()), Some(task));
        keeper.settle_all();
        // What a container of before cannot have back is no service's.
        let own = PublishedPort { published: 9090, mode: PublishMode::Host, ..PublishedPort::default() };
        keeper.edge.claim_ports("box", &[own]);
        let refused = [RefusedPort { published, cause: Cause::Process }];
        assert_eq!(told(&mut keeper), refused, "once for both families");
        assert!(keeper.retry_at.is_some());
        keeper.retry_refused();
        assert_eq!(told(&mut keeper), refused);

        drop((thief, other));
        keeper.retry_refused();
        assert_eq!((told(&mut keeper), keeper.retry_at), (Vec::new(), None));
        let frontend = covey_mesh::Frontend::Port {
            address: [0, 0, 0, 0].into(),
            protocol: covey_mesh::Protocol::Tcp,
            port: 8080,
        };
        assert!(keeper.edge.balancer.lookup(&frontend).unwrap().is_some(), "the kernel has been told");
    });
}

/// What host 2 told of a task behind published ports.
fn told(last: u8) -> Endpoint {
    Endpoint {
        service: None,
        names: Vec::new(),
        container: format!("box{last}"),
        aliases: Vec::new(),
        addresses: vec![[100, 64, 2, last].into()],
        host: neighbour().host,
        draining: false,
    }
}

fn neighbour() -> Neighbour {
    let edge = EdgeBlock { v4: "100.64.2.0/24".parse().unwrap(), v6: "fd00:2::/64".parse().unwrap() };
    let host = Host { number: 2, vtep: [10, 9, 0, 2].into(), edge };
    Neighbour { id: Id::new(2), address: [10, 9, 0, 2].into(), host }
}

/// The tasks behind published ports that a keeper knows, told when it comes to that.
fn ask_for_tasks(inbox: &Inbox, reply: mpsc::Sender<Vec<String>>) {
    inbox.ask(Request::Look(Box::new(move |keeper| {
        let tasks = keeper.edge.balancer.rows.iter().map(|((_, key), _)| key.to_string());
        reply.send(tasks.collect()).unwrap();
    })));
}

/// NET-29: a task that ended elsewhere while no daemon was here is gone as soon as all has been heard, and no sooner.
#[test]
fn what_nobody_tells_any_more_goes_when_all_has_been_told() {
    in_namespace(|folder| {
        let row = |key: &str, last| (Scope::Ingress, Id::new(2), key.to_owned(), told(last));
        let rows = vec![row("ended", 3), row("runs", 4)];
        let before = Remembered { neighbours: vec![neighbour()], rows, ..Remembered::default() };
        Memory::new(folder).write(&before);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let carried = watch::Sender::new(Carried::new());
        let keeper = Keeper::open(folder, Duration::from_secs(10), carried, runtime.handle().clone())?;
        let (inbox, (reply, tasks)) = (Inbox::default(), mpsc::channel());
        inbox.ask(Request::Open(None));
        inbox.row(Scope::Ingress, (Id::new(2), "runs".into()), Some(told(4)));
        ask_for_tasks(&inbox, reply.clone());
        let then = inbox.clone();
        inbox.ask(Request::Look(Box::new(move |_| {
            then.heard(Scope::Ingress);
            ask_for_tasks(&then, reply);
            then.ask(Request::End(tokio::sync::oneshot::channel().0));
        })));
        keeper.run(&inbox);
        assert_eq!(tasks.iter().collect::<Vec<_>>(), [vec!["ended", "runs"], vec!["runs"]]);
        Ok(())
    });
}

/// NET-29: whatever the kernel was told of, the next daemon knows of, and no packet is lost until others tell it again.
#[test]
fn what_was_told_in_the_moment_of_its_death_is_known_to_the_next_daemon() {
    in_namespace(|folder| {
        let before = Remembered { neighbours: vec![neighbour()], ..Remembered::default() };
        Memory::new(folder).write(&before);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let open = || {
            let carried = watch::Sender::new(Carried::new());
            let mut keeper =
                Keeper::open(folder, Duration::from_secs(10), carried, runtime.handle().clone())?;
            keeper.begin(None);
            Ok::<_, anyhow::Error>(keeper)
        };
        let rows = |keeper: &Keeper| -> Vec<String> {
            keeper.edge.balancer.rows.iter().map(|((_, key), _)| key.to_string()).collect()
        };
        let at = |key: &str| (Scope::Ingress, (Id::new(2), Arc::from(key)));
        let mut keeper = open()?;
        let news = BTreeMap::from([(at("gone"), Some(told(3))), (at("late"), Some(told(4)))]);
        keeper.hear(news, &BTreeSet::new(), BTreeMap::new());
        keeper.hear([(at("gone"), None)].into(), &BTreeSet::new(), BTreeMap::new());
        assert_eq!(rows(&keeper), ["late"]);
        drop(keeper);
        assert_eq!(rows(&open()?), ["late"]);
        Ok(())
    });
}

/// NET-29: the next daemon has flows learnt anew, and what it replaces for that is no drift.
#[test]
fn the_flow_cache_is_at_all_links_while_there_are_others_and_a_new_daemon_has_it_at_once() {
    in_namespace(|folder| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let open = || {
            let carried = watch::Sender::new(Carried::new());
            Keeper::open(folder, Duration::from_secs(10), carried, runtime.handle().clone())
        };
        let mut keeper = open()?;
        if keeper.cache.is_none() {
            eprintln!("SKIPPED: this kernel has no flow cache");
            return Ok(());
        }
        keeper.begin(None);
        let underlay = "ip link add eth0 up type bridge && ip addr add 10.9.0.1/24 dev eth0";
        assert!(std::process::Command::new("sh").args(["-c", underlay]).status()?.success());
        let edge = EdgeBlock { v4: "100.64.1.0/24".parse()?, v6: "fd00:1::/64".parse()? };
        let host = Host { number: 1, vtep: [10, 9, 0, 1].into(), edge };
        keeper.locate(Place { id: Id::new(1), host, port: 4789 }, vec![neighbour()]);
        let mut wiring = wiring();
        let mut front = NetworkConfig::clone(&wiring.networks[0].network);
        front.subnets[0].vni = Some(4097);
        wiring.networks[0].network = Arc::new(front);
        let attached = keeper.attach(BOX, "box", &wiring)?;
        // Links that have it, the host's own and those of the router.
        let cached = |keeper: &mut Keeper| {
            let host = keeper.edge.observe().unwrap();
            let routers = keeper.carriers.values_mut().map(|carrier| carrier.observe().unwrap());
            let links: Vec<_> = routers.flat_map(|router| router.links).chain(host.links).collect();
            let has = links.into_iter().filter(|(_, link)| link.cached).map(|(name, _)| name.to_string());
            (host.underlay.map(|underlay| underlay.local), has.collect::<Vec<_>>())
        };
        let link = &format!("cv{}", &BOX[..13]);
        let all = (Some(host.vtep), [link, "cvu4097", link].map(str::to_owned).to_vec());
        assert_eq!((cached(&mut keeper), faults(&mut keeper)), (all.clone(), Vec::new()));

        drop(keeper);
        let mut keeper = open()?;
        keeper.adopt(BOX, &wiring, &attached.addresses, &attached.ports, Vec::new())?;
        keeper.begin(None);
        assert_eq!(cached(&mut keeper), all);
        keeper.repair();
        assert_eq!((&keeper.drift, keeper.repairs), (&BTreeMap::new(), 0));
        // It takes what it does not know off links of ours.
        covey_overlay_netlink::Stack::edge(None)?;
        keeper.repair();
        assert_eq!((&keeper.drift, keeper.repairs), (&BTreeMap::from([("flow_cache", 1)]), 1));
        assert_eq!(cached(&mut keeper), all);

        keeper.detach(BOX)?;
        keeper.leave();
        assert_eq!(cached(&mut keeper), (None, Vec::new()));
        Ok(())
    });
}
