//! The edge against a real kernel, in namespaces of its own: what it makes, what it mends, what it leaves.
#![allow(clippy::disallowed_methods, reason = "door: tests make namespaces and run ip and ping")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use covey_overlay::{
    block::Pair,
    edge::{Desired, plan, plan_new},
    object::{LinkName, Veth},
};
use covey_overlay_netlink::{Edge, EdgeError, local_networks, namespace};

/// A host and its containers, each a network namespace, named in a folder that goes with the test.
struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    /// `None`, said loudly, where this user may not make namespaces.
    fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root to make network namespaces");
            return None;
        }
        let lab = Self { folder: tempfile::tempdir().unwrap() };
        namespace::create(&lab.path("host")).unwrap();
        // A host has an address of its own, else it has no source to speak from.
        lab.run("host", "ip addr add 10.1.1.1/32 dev lo && ip addr add fd01::1/128 dev lo nodad").unwrap();
        Some(lab)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn container(&self, id: &str, last: u8) -> Veth {
        let path = self.path(id);
        namespace::create(&path).unwrap();
        Veth {
            name: LinkName::of_container(id),
            namespace: path.to_str().unwrap().to_owned(),
            addresses: Pair {
                v4: [100, 64, 1, last].into(),
                v6: [0xfd00, 0xc0, 0, 1, 0, 0, 0, u16::from(last)].into(),
            },
            mtu: 1450,
        }
    }

    fn on_host<T: Send>(&self, work: impl FnOnce(&mut Edge) -> Result<T, EdgeError> + Send) -> T {
        namespace::inside(&self.path("host"), || work(&mut Edge::open()?)).unwrap()
    }

    fn run(&self, name: &str, command: &str) -> Result<String, String> {
        let path = self.path(name);
        let output = namespace::inside::<_, std::io::Error>(&path, || {
            Command::new("sh").args(["-c", command]).output()
        })
        .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(text)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn repair(&self, desired: &Desired) -> usize {
        self.on_host(|edge| {
            let changes = plan(desired, &edge.observe()?);
            changes.iter().try_for_each(|change| edge.apply(change))?;
            Ok(changes.len())
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.folder.path()).unwrap().flatten() {
            namespace::remove(&entry.path()).unwrap();
        }
    }
}

fn wanted(veths: &[Veth]) -> Desired {
    veths.iter().map(|veth| (veth.name.clone(), veth.clone())).collect()
}

/// CTR-11, CTR-13
#[test]
fn containers_reach_their_host_and_each_other_in_both_families() {
    let Some(lab) = Lab::new() else { return };
    let veths = [lab.container("aaaa", 5), lab.container("bbbb", 6)];
    lab.on_host(|edge| veths.iter().flat_map(plan_new).try_for_each(|change| edge.apply(&change)));
    assert_eq!(lab.repair(&wanted(&veths)), 0, "a new container is complete");
    for to in ["100.64.1.6", "fd00:c0:0:1::6"] {
        lab.run("aaaa", &format!("busybox ping -c1 -W5 {to}")).unwrap();
        lab.run("host", &format!("busybox ping -c1 -W5 {to}")).unwrap();
    }
}

#[test]
fn drift_heals_and_nothing_of_others_is_touched() {
    let Some(lab) = Lab::new() else { return };
    let veths = [lab.container("aaaa", 5), lab.container("bbbb", 6)];
    let desired = wanted(&veths);
    assert!(lab.repair(&desired) > 0);
    lab.run("host", "ip link add other type veth peer name rehto && ip link set other up && ip route add 10.9.9.9 dev other").unwrap();
    for damage in [
        "ip link del cvaaaa",
        "ip link set cvaaaa down",
        "ip link set cvbbbb mtu 1000",
        "ip route del 100.64.1.5",
        "ip -6 route del fd00:c0:0:1::5",
        "ip neigh del 100.64.1.6 dev cvbbbb",
        "ip neigh replace 100.64.1.6 lladdr 02:00:00:00:00:09 dev cvbbbb nud permanent",
        "ip link add cvstray type veth peer name yarts",
    ] {
        lab.run("host", damage).unwrap();
        assert!(lab.repair(&desired) > 0, "{damage}: not seen");
        assert_eq!(lab.repair(&desired), 0, "{damage}: not healed by one plan");
        for to in ["100.64.1.5", "100.64.1.6", "fd00:c0:0:1::5"] {
            lab.run("host", &format!("busybox ping -c1 -W5 {to}"))
                .unwrap_or_else(|error| panic!("{damage}: {to}: {error}"));
        }
    }
    assert!(lab.run("host", "ip route show dev other").unwrap().contains("10.9.9.9"));
}

#[test]
fn no_residue_is_left_when_nothing_is_wanted() {
    let Some(lab) = Lab::new() else { return };
    let before = lab.run("host", "ip -o link; ip route; ip -6 route show table main; ip neigh").unwrap();
    lab.repair(&wanted(&[lab.container("aaaa", 5)]));
    lab.repair(&Desired::new());
    assert_eq!(
        lab.run("host", "ip -o link; ip route; ip -6 route show table main; ip neigh").unwrap(),
        before
    );
}

#[test]
fn a_namespace_is_there_until_it_is_removed_and_removing_twice_is_no_error() {
    let Some(lab) = Lab::new() else { return };
    let path = lab.path("once");
    namespace::create(&path).unwrap();
    assert!(namespace::create(&path).is_err(), "the name is taken");
    namespace::remove(&path).unwrap();
    namespace::remove(&path).unwrap();
    assert!(!Path::new(&path).exists());
}

#[test]
fn networks_that_the_host_reaches_are_listed() {
    let Some(lab) = Lab::new() else { return };
    lab.run(
        "host",
        "ip link add d0 type veth peer name d1 && ip addr add 10.20.0.1/16 dev d0 && ip link set d0 up",
    )
    .unwrap();
    let networks = namespace::inside::<_, std::io::Error>(&lab.path("host"), || {
        local_networks().map_err(std::io::Error::other)
    });
    assert!(networks.unwrap().contains(&"10.20.0.0/16".parse().unwrap()));
}
