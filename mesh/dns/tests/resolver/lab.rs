//! A host and a container, each a fresh network namespace, and a client in the container.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use covey_mesh::names::{Member, Zone};
use covey_mesh_dns::{Forwarder, Outside, Resolver, Scope, Sockets};
use covey_overlay_netlink::namespace;
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use tokio::{runtime::Runtime, sync::watch};

/// Where containers ask.
pub const RESOLVER: &str = "127.0.0.11:53";
/// How long an answer is waited for that must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Lab {
    pub runtime: Runtime,
    pub zone: watch::Sender<Zone>,
    pub scope: watch::Sender<Scope>,
    pub forwarder: Arc<Forwarder>,
    /// Gone while the daemon restarts.
    pub resolver: Option<Resolver>,
    folder: tempfile::TempDir,
}

impl Lab {
    /// `None`, said loudly, where this process may not make namespaces. The resolver works, and knows nothing yet.
    pub fn new() -> Option<Self> {
        let mut lab = Self::without_resolver()?;
        let sockets = Sockets::open(&lab.path("container")).unwrap();
        lab.start(sockets);
        Some(lab)
    }

    pub fn without_resolver() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root to make network namespaces");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        for name in ["host", "container"] {
            namespace::create(&folder.path().join(name)).unwrap();
        }
        // Its threads are where the thread was that made it.
        let runtime = namespace::inside(&folder.path().join("host"), || {
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
        });
        let zone = watch::Sender::new(Zone::new("shop"));
        let zones = vec![zone.subscribe()];
        let scope = watch::Sender::new(Scope {
            host: "57e612f35a38".into(),
            addresses: vec!["10.0.1.7".parse().unwrap()],
            zones,
            outside: Outside::Nothing,
        });
        let forwarder = Arc::default();
        Some(Self { runtime: runtime.unwrap(), zone, scope, forwarder, resolver: None, folder })
    }

    /// The resolver works, and the rule leads to it.
    pub fn start(&mut self, sockets: Sockets) {
        let _inside = self.runtime.enter();
        let resolver = Resolver::spawn(sockets, self.scope.subscribe(), self.forwarder.clone()).unwrap();
        resolver.lead_here().unwrap();
        self.resolver = Some(resolver);
    }

    /// Looks over the rule; true if it had to be made. Whoever only looks sees the same before.
    pub fn lead_here(&self) -> bool {
        let resolver = self.resolver.as_ref().unwrap();
        let is_led = resolver.is_led_here().unwrap();
        let made = resolver.lead_here().unwrap();
        assert_ne!(is_led, made);
        made
    }

    /// Stops the resolver, and waits until nothing of it is at work any more.
    pub fn stop(&mut self) {
        self.resolver = None;
        let deadline = Instant::now() + PATIENCE;
        while self.runtime.metrics().num_alive_tasks() > 0 {
            assert!(Instant::now() < deadline, "never ends");
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn set(&self, key: &str, member: Member) {
        self.zone.send_modify(|zone| zone.set(key, Some(member)));
    }

    pub fn forward_to(&self, servers: &[SocketAddr]) {
        self.scope.send_modify(|scope| scope.outside = Outside::Servers(servers.to_vec()));
    }

    /// A UDP socket in one of the namespaces.
    pub fn udp(&self, name: &str, address: &str) -> UdpSocket {
        let socket = namespace::inside(&self.path(name), || UdpSocket::bind(address)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// A TCP listener in one of the namespaces.
    pub fn listener(&self, name: &str, address: &str) -> TcpListener {
        namespace::inside(&self.path(name), || TcpListener::bind(address)).unwrap()
    }

    /// A socket in the container that sends to the resolver, and hears it alone.
    pub fn client(&self) -> UdpSocket {
        let socket = self.udp("container", "0.0.0.0:0");
        socket.connect(RESOLVER).unwrap();
        socket
    }

    /// A connection from the container.
    pub fn connect(&self, address: &str) -> io::Result<TcpStream> {
        let stream = namespace::inside(&self.path("container"), || TcpStream::connect(address))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// The answer over UDP.
    pub fn ask(&self, name: &str, kind: RecordType) -> Message {
        self.ask_all(&query(name, kind))
    }

    /// The same, to a query of any form.
    pub fn ask_all(&self, query: &Message) -> Message {
        let client = self.client();
        client.send(&query.to_vec().unwrap()).unwrap();
        receive(&client)
    }

    /// The answer over TCP.
    pub fn ask_tcp(&self, query: &Message) -> Message {
        let mut stream = self.connect(RESOLVER).unwrap();
        write_framed(&mut stream, &query.to_vec().unwrap());
        read_framed(&mut stream).unwrap()
    }

    /// Runs a person's tool in a namespace; `None`, said loudly, without the tool.
    pub fn nft(&self, command: &str) -> Option<String> {
        if Command::new("nft").arg("--version").output().is_err() {
            eprintln!("SKIPPED: needs nft, of package nftables");
            return None;
        }
        let run = || Command::new("nft").args(command.split(' ')).output();
        let output = namespace::inside(&self.path("container"), run).unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8(output.stdout).unwrap())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in ["host", "container"] {
            namespace::remove(&self.path(name)).unwrap();
        }
    }
}

pub fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

/// With EDNS, and room for that many bytes.
pub fn query_with_room(name: &str, kind: RecordType, room: u16) -> Message {
    let mut message = query(name, kind);
    let mut edns = Edns::new();
    edns.set_max_payload(room);
    message.set_edns(edns);
    message
}

pub fn receive(socket: &UdpSocket) -> Message {
    Message::from_vec(&receive_raw(socket).0).unwrap()
}

/// What a server of the host has been asked, and by whom.
pub fn receive_from(socket: &UdpSocket) -> (Message, SocketAddr) {
    let (bytes, from) = receive_raw(socket);
    (Message::from_vec(&bytes).unwrap(), from)
}

/// The next datagram, whatever signals come meanwhile.
pub fn receive_raw(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65536];
    loop {
        match socket.recv_from(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            received => {
                let (length, from) = received.expect("nothing comes");
                buffer.truncate(length);
                return (buffer, from);
            }
        }
    }
}

pub fn write_framed(stream: &mut TcpStream, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap();
    stream.write_all(&[&length.to_be_bytes()[..], bytes].concat()).unwrap();
}

pub fn read_framed(stream: &mut TcpStream) -> io::Result<Message> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes)?;
    Message::from_vec(&bytes).map_err(io::Error::other)
}

pub fn code(message: &Message) -> ResponseCode {
    message.metadata.response_code
}

/// The addresses in an answer, in its order.
pub fn addresses(message: &Message) -> Vec<String> {
    let addresses: Vec<IpAddr> = message.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
    addresses.iter().map(ToString::to_string).collect()
}

/// The data of all answers, as people read them.
pub fn answers(message: &Message) -> Vec<RData> {
    message.answers.iter().map(|record| record.data.clone()).collect()
}

/// An active task of service `web` at that address.
pub fn web(address: &str, vips: &[&str]) -> Member {
    Member {
        addresses: vec![address.parse().unwrap()],
        own: vec![format!("web.{}", address.replace(['.', ':'], "-"))],
        services: vec!["web".into()],
        vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
        active: true,
        version: 1,
        ..Member::default()
    }
}
