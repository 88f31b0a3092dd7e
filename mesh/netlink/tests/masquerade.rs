//! Masquerading against a real kernel, in namespaces of its own: what it writes, reads, mends, and what packets show.
#![allow(clippy::disallowed_methods, reason = "door: tests make namespaces, run ip and nft, and wait")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in what it is built of as well")]

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use covey_mesh::masquerade::{Change, Masquerade, Observed, plan};
use covey_mesh_netlink::{Nft, NftError};
use covey_overlay_netlink::namespace;

/// How long packets may take to come through.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts to get one through: links need a moment until they carry.
const PAUSE: Duration = Duration::from_millis(50);
/// Connections made while rules are replaced all the time.
const FLOWS: usize = 300;

/// Network namespaces, named in a folder that goes with the test.
struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    /// With a host in it. `None`, said loudly, where this user may not make namespaces.
    fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root to make network namespaces");
            return None;
        }
        let lab = Self { folder: tempfile::tempdir().unwrap() };
        lab.add("host");
        Some(lab)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn add(&self, name: &str) {
        namespace::create(&self.path(name)).unwrap();
    }

    fn run(&self, name: &str, command: &str) -> String {
        let output = namespace::inside::<_, io::Error>(&self.path(name), || {
            Command::new("sh").args(["-ec", command]).output()
        });
        let output = output.unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A socket into the host's namespace.
    fn nft(&self) -> Nft {
        let opened = namespace::inside(&self.path("host"), || Nft::open().map_err(io::Error::other));
        opened.unwrap()
    }

    /// Whether a person's tool is there to look with.
    fn has_nft(&self) -> bool {
        let found = Command::new("nft").arg("--version").output().is_ok();
        if !found {
            eprintln!("SKIPPED: needs nft, of package nftables");
        }
        found
    }

    fn socket(&self, name: &str, address: &str) -> UdpSocket {
        let address: IpAddr = address.parse().unwrap();
        let bound = namespace::inside(&self.path(name), || UdpSocket::bind(SocketAddr::new(address, 0)));
        let socket = bound.unwrap();
        socket.set_read_timeout(Some(PAUSE)).unwrap();
        socket
    }

    /// The address under which a packet of `from` arrives at `to`, once an answer has come back to `from`.
    fn seen(&self, (from, own): (&str, &str), (to, address): (&str, &str)) -> String {
        let (client, server) = (self.socket(from, own), self.socket(to, address));
        let (mut buffer, begun) = ([0; 8], Instant::now());
        while begun.elapsed() < PATIENCE {
            client.send_to(b"hello", server.local_addr().unwrap()).unwrap();
            if let Ok((_, source)) = server.recv_from(&mut buffer) {
                server.send_to(b"answer", source).unwrap();
                if client.recv_from(&mut buffer).is_ok() {
                    return source.ip().to_string();
                }
            }
        }
        panic!("no answer for {own} of {from} from {address} of {to}");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.folder.path()).unwrap().flatten() {
            namespace::remove(&entry.path()).unwrap();
        }
    }
}

fn rules(sources: &[&str]) -> BTreeSet<Masquerade> {
    sources.iter().map(|s| Masquerade { source: s.parse().unwrap(), inside: "cv".to_owned() }).collect()
}

/// Plans and applies until nothing is left to do; how many steps that took.
fn repair(nft: &mut Nft, desired: &BTreeSet<Masquerade>) -> usize {
    let mut steps = 0;
    while let Some(change) = plan(desired, &nft.observe().unwrap()) {
        nft.apply(&change).unwrap();
        steps += 1;
        assert!(steps < 3, "never done");
    }
    steps
}

#[test]
fn what_is_applied_is_observed_and_is_what_nft_shows() {
    let Some(lab) = Lab::new() else { return };
    let mut nft = lab.nft();
    assert_eq!(nft.observe().unwrap(), None);
    let wanted =
        rules(&["100.64.1.0/24", "100.64.7.64/26", "fd00:c0:0:1::/64", "fd00:c1::/61", "10.1.1.1/32"]);
    for time in ["once", "twice"] {
        nft.apply(&Change::Replace(wanted.clone())).unwrap();
        assert_eq!(nft.observe().unwrap(), Some(Ok(wanted.clone())), "applied {time}");
    }
    nft.apply(&Change::Replace(BTreeSet::new())).unwrap();
    assert_eq!(nft.observe().unwrap(), Some(Ok(BTreeSet::new())));
    if lab.has_nft() {
        nft.apply(&Change::Replace(rules(&["100.64.1.0/24", "fd00:c0:0:1::/64"]))).unwrap();
        let shown = "table inet covey {\n\
            \tchain postrouting {\n\
            \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
            \t\tip saddr 100.64.1.0/24 oifname != \"cv*\" masquerade\n\
            \t\tip6 saddr fd00:c0:0:1::/64 oifname != \"cv*\" masquerade\n\
            \t}\n\
            }\n";
        assert_eq!(lab.run("host", "nft list ruleset"), shown);
    }
}

#[test]
fn what_nft_makes_of_the_same_words_is_read_as_ours() {
    let Some(lab) = Lab::new() else { return };
    if !lab.has_nft() {
        return;
    }
    // Blocks that do not end at a byte's border: for others nft compares fewer bytes instead of masking them.
    lab.run(
        "host",
        "nft 'add table inet covey;
            add chain inet covey postrouting { type nat hook postrouting priority srcnat; };
            add rule inet covey postrouting ip saddr 100.64.1.64/26 oifname != \"cv*\" masquerade;
            add rule inet covey postrouting ip6 saddr fd00:c1::/61 oifname != \"cv*\" masquerade'",
    );
    assert_eq!(lab.nft().observe().unwrap(), Some(Ok(rules(&["100.64.1.64/26", "fd00:c1::/61"]))));
}

#[test]
fn nothing_is_left_of_ours_and_nothing_of_others_is_touched() {
    let Some(lab) = Lab::new() else { return };
    let mut nft = lab.nft();
    let with_nft = lab.has_nft();
    let others = || lab.run("host", "nft list table inet others; nft list table ip covey");
    if with_nft {
        lab.run(
            "host",
            "nft 'add table inet others;
                add chain inet others postrouting { type nat hook postrouting priority srcnat; };
                add rule inet others postrouting ip saddr 10.0.0.0/8 masquerade;
                add table ip covey; add chain ip covey mine; add rule ip covey mine counter drop'",
        );
    }
    let before = with_nft.then(others);
    assert_eq!(nft.observe().unwrap(), None, "other tables are not ours");
    assert_eq!(repair(&mut nft, &rules(&["100.64.1.0/24"])), 1);
    assert_eq!(repair(&mut nft, &rules(&["100.64.2.0/24"])), 1);
    assert_eq!(with_nft.then(others), before);
    assert_eq!(repair(&mut nft, &BTreeSet::new()), 1);
    assert_eq!(nft.observe().unwrap(), None);
    nft.apply(&Change::Delete).unwrap();
    assert_eq!(nft.observe().unwrap(), None, "deleting what is not there is no error");
    assert_eq!(with_nft.then(others), before);
    if with_nft {
        assert_eq!(lab.run("host", "nft list tables"), "table inet others\ntable ip covey\n");
    }
}

#[test]
fn damage_by_hand_is_seen_and_mended_by_one_step() {
    let Some(lab) = Lab::new() else { return };
    if !lab.has_nft() {
        return;
    }
    let mut nft = lab.nft();
    let desired = rules(&["100.64.1.0/24", "fd00:c0:0:1::/64"]);
    let added = |place: usize| -> Observed { Some(Err(place)) };
    let add = "nft add rule inet covey postrouting";
    for (damage, seen) in [
        ("nft flush ruleset".to_owned(), None),
        ("nft flush table inet covey".to_owned(), Some(Ok(BTreeSet::new()))),
        ("nft flush table inet covey; nft delete chain inet covey postrouting".to_owned(), added(0)),
        ("nft 'chain inet covey postrouting { policy drop; }'".to_owned(), added(0)),
        ("nft 'add table inet covey { flags dormant; }'".to_owned(), added(0)),
        (
            "nft 'add chain inet covey more { type filter hook forward priority 0; policy drop; }'"
                .to_owned(),
            added(0),
        ),
        ("nft insert rule inet covey postrouting accept".to_owned(), added(0)),
        (format!("{add} ip saddr 100.64.3.0/24 oifname != 'cv*' masquerade"), added(2)),
        (format!("{add} ip saddr 100.64.3.64/26 oifname != 'cv*' masquerade random"), added(2)),
        (format!("{add} ip saddr 100.64.3.64/26 oifname 'cv*' masquerade"), added(2)),
        (format!("{add} tcp dport 80 masquerade to :1000-2000"), added(2)),
        (format!("{add} ip saddr 10.1.1.1 snat ip to 10.1.1.2"), added(2)),
        (format!("{add} ct state new limit rate 1/second counter log prefix 'x' comment 'y'"), added(2)),
        (format!("{add} tcp dport vmap '{{ 80 : accept, 81 : return }}'"), added(2)),
        (format!("{add} meta mark set numgen inc mod 2"), added(2)),
    ] {
        assert!(repair(&mut nft, &desired) <= 1);
        lab.run("host", &damage);
        assert_eq!(nft.observe().unwrap(), seen, "{damage}");
        assert_eq!(repair(&mut nft, &desired), 1, "{damage}");
    }
}

#[test]
fn what_no_rule_can_say_is_refused_and_changes_nothing() {
    let Some(lab) = Lab::new() else { return };
    let mut nft = lab.nft();
    let before = rules(&["100.64.1.0/24"]);
    nft.apply(&Change::Replace(before.clone())).unwrap();
    let refused = nft.apply(&Change::Replace(rules(&["100.64.1.5/24"])));
    assert!(matches!(refused, Err(NftError::Unsayable(_))), "{refused:?}");
    assert_eq!(nft.observe().unwrap(), Some(Ok(before)));
}

/// Two containers of the block and one of another, a host, and the world behind it.
fn world() -> Option<Lab> {
    let lab = Lab::new()?;
    lab.run("host", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding");
    for (name, link, v4, v6) in [
        ("aaaa", "cvaaaa", "100.64.1", "fd00:c0:0:1:a"),
        ("bbbb", "cvbbbb", "100.64.2", "fd00:c0:0:1:b"),
        ("other", "cvother", "100.65.1", "fd00:c1:0:1:c"),
        ("outside", "out0", "10.20.0", "fd20:0:0:0:0"),
    ] {
        lab.add(name);
        let path = lab.path(name);
        lab.run(
            "host",
            &format!(
                "ip link add {link} type veth peer name eth0 netns {path}
                ip addr add {v4}.1/24 dev {link}; ip addr add {v6}::1/80 dev {link} nodad
                ip link set {link} up",
                path = path.display(),
            ),
        );
        lab.run(
            name,
            &format!(
                "ip addr add {v4}.2/24 dev eth0; ip addr add {v6}::2/80 dev eth0 nodad
                ip link set eth0 up
                ip route add default via {v4}.1; ip route add default via {v6}::1"
            ),
        );
    }
    Some(lab)
}

/// CTR-11, NET-05
#[test]
fn packets_of_the_block_go_out_under_the_address_of_the_host_and_nothing_else_does() {
    let Some(lab) = world() else { return };
    let mut nft = lab.nft();
    let seen = |from, to| {
        let own = |name| match name {
            "aaaa" => ["100.64.1.2", "fd00:c0:0:1:a::2"],
            "bbbb" => ["100.64.2.2", "fd00:c0:0:1:b::2"],
            "other" => ["100.65.1.2", "fd00:c1:0:1:c::2"],
            _ => ["10.20.0.2", "fd20::2"],
        };
        [0, 1].map(|family| lab.seen((from, own(from)[family]), (to, own(to)[family])))
    };
    let (own, host) = (["100.64.1.2", "fd00:c0:0:1:a::2"], ["10.20.0.1", "fd20::1"]);
    assert_eq!(seen("aaaa", "outside"), own, "nothing is translated yet");
    nft.apply(&Change::Replace(rules(&["100.64.0.0/16", "fd00:c0:0:1::/64"]))).unwrap();
    assert_eq!(seen("aaaa", "outside"), host, "out of the host");
    assert_eq!(seen("bbbb", "outside"), host, "out of the host");
    assert_eq!(seen("aaaa", "bbbb"), own, "within the host");
    assert_eq!(seen("other", "outside"), ["100.65.1.2", "fd00:c1:0:1:c::2"], "not of the block");
    assert_eq!(seen("outside", "aaaa"), ["10.20.0.2", "fd20::2"], "from outside");
    nft.apply(&Change::Delete).unwrap();
    assert_eq!(seen("aaaa", "outside"), own, "nothing is translated any more");
}

/// CTR-11, NET-05
#[test]
fn no_packet_slips_through_while_rules_are_replaced() {
    let Some(lab) = world() else { return };
    let mut nft = lab.nft();
    let states = [rules(&["100.64.0.0/16"]), rules(&["100.64.1.0/24", "100.66.0.0/16"])];
    nft.apply(&Change::Replace(states[1].clone())).unwrap();
    let enough = AtomicBool::new(false);
    let (seen, replaced) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut wanted, mut replaced) = (states.iter().cycle(), 0);
            while !enough.load(Ordering::Relaxed) {
                replaced += repair(&mut nft, wanted.next().unwrap());
            }
            replaced
        });
        let seen: BTreeSet<_> =
            (0..FLOWS).map(|_| lab.seen(("aaaa", "100.64.1.2"), ("outside", "10.20.0.2"))).collect();
        enough.store(true, Ordering::Relaxed);
        (seen, writer.join().unwrap())
    });
    assert_eq!(seen, BTreeSet::from(["10.20.0.1".to_owned()]));
    assert!(replaced > 10, "only {replaced} times replaced");
}
