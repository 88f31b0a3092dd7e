//! Namespaces of a test, and what tests do in them.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod server;

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use covey_mesh::{Program, object::Change, plan};
use covey_mesh_netlink::{Conntrack, Nft};
use covey_overlay_netlink::namespace;

/// How long packets may take to come through.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts to get one through: links need a moment until they carry.
pub const PAUSE: Duration = Duration::from_millis(50);

/// Network namespaces, named in a folder that goes with the test.
pub struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    /// With a host in it. `None`, said loudly, where this user may not make namespaces.
    pub fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root to make network namespaces");
            return None;
        }
        let lab = Self { folder: tempfile::tempdir().unwrap() };
        lab.add("host");
        Some(lab)
    }

    /// A host that forwards between these: names, each with a link of `name` on the host (`cv` in front), the second
    /// host's own addresses on it, and default routes to it.
    pub fn star(places: &[Place]) -> Option<Self> {
        let lab = Self::new()?;
        lab.run(
            "host",
            "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
            echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter; echo 0 >/proc/sys/net/ipv4/conf/default/rp_filter",
        );
        for Place { name, link, v4, v6 } in places {
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

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn add(&self, name: &str) {
        namespace::create(&self.path(name)).unwrap();
    }

    pub fn run(&self, name: &str, command: &str) -> String {
        let output = self.inside(name, || Command::new("sh").args(["-ec", command]).output()).unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn inside<T: Send>(&self, name: &str, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        namespace::inside(&self.path(name), work)
    }

    /// A socket into the host's namespace.
    pub fn nft(&self) -> Nft {
        Nft::open_in(&self.path("host")).unwrap()
    }

    pub fn conntrack(&self) -> Conntrack {
        Conntrack::open_in(&self.path("host")).unwrap()
    }

    /// Whether a person's tool is there to look with.
    pub fn has_nft(&self) -> bool {
        let found = Command::new("nft").arg("--version").output().is_ok();
        if !found {
            eprintln!("SKIPPED: needs nft, of package nftables");
        }
        found
    }

    pub fn udp(&self, name: &str, address: &str, port: u16) -> UdpSocket {
        let address: IpAddr = address.parse().unwrap();
        let socket = self.inside(name, || UdpSocket::bind(SocketAddr::new(address, port))).unwrap();
        socket.set_read_timeout(Some(PAUSE)).unwrap();
        socket
    }

    pub fn listen(&self, name: &str, address: &str, port: u16) -> TcpListener {
        let address: IpAddr = address.parse().unwrap();
        self.inside(name, || TcpListener::bind(SocketAddr::new(address, port))).unwrap()
    }

    pub fn connect(&self, name: &str, to: SocketAddr) -> io::Result<TcpStream> {
        let stream = self.inside(name, || TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// The address under which a packet of `from` arrives at `to`, once an answer has come back to `from`.
    pub fn seen(&self, (from, own): (&str, &str), (to, address): (&str, &str)) -> String {
        let (client, server) = (self.udp(from, own, 0), self.udp(to, address, 0));
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

/// A namespace beside the host.
pub struct Place {
    pub name: &'static str,
    /// The host's end.
    pub link: &'static str,
    /// The first three numbers of its addresses: `.1` is the host, `.2` itself.
    pub v4: &'static str,
    /// The first five groups, likewise.
    pub v6: &'static str,
}

/// Plans and applies until nothing is left to do; the changes of all steps, of which one must be enough.
pub fn repair(nft: &mut Nft, desired: &Program) -> Vec<Change> {
    let changes = plan(desired, &nft.observe().unwrap());
    nft.apply(&changes).unwrap();
    // Not all may be listed yet: see `Nft::observe`.
    let begun = Instant::now();
    while !plan(desired, &nft.observe().unwrap()).is_empty() {
        assert!(begun.elapsed() < PATIENCE, "not done after one step");
    }
    changes
}
