//! Network namespaces of a lab, from inside: a test asks, listens and looks from there without any program's help.

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    path::Path,
    thread,
    time::Duration,
};

use crate::lab::Lab;

/// How long one answer may take.
pub const ANSWER: Duration = Duration::from_secs(2);
/// Bytes of an answer at most.
const ANSWER_BYTES_MAX: usize = 2048;

/// A network namespace, which stays for as long as this does.
#[derive(Debug)]
pub struct Space(File);

/// What a `witness` answered: who, at which address, and whom it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Testimony {
    /// The host name of its container.
    pub host: String,
    /// Where it was asked; the wildcard for UDP.
    pub address: IpAddr,
    /// Who asked, as it sees it.
    pub client: IpAddr,
}

impl Space {
    /// That of a path.
    ///
    /// # Panics
    /// When there is none.
    pub fn at(path: &Path) -> Self {
        Self(File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    /// Does something inside, on a thread of its own.
    ///
    /// # Panics
    /// When the namespace cannot be entered, or when that something panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            // SAFETY: a plain call with a descriptor that lives; it concerns this thread alone.
            let entered = unsafe { libc::setns(self.0.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(entered, 0, "the namespace is entered: {}", io::Error::last_os_error());
            work()
        };
        match thread::scope(|scope| scope.spawn(inside).join()) {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Asks a witness over TCP.
    ///
    /// # Errors
    /// It cannot be reached, or says nothing that makes sense.
    pub fn ask(&self, to: &str) -> io::Result<Testimony> {
        self.run(|| tcp(to))
    }

    /// Asks a witness over UDP, once.
    ///
    /// # Errors
    /// As above.
    pub fn ask_udp(&self, to: &str) -> io::Result<Testimony> {
        self.run(|| udp(to, ANSWER))
    }
}

impl Lab {
    /// The network of a host, or of the `hub` between them.
    pub fn space(&self, host: &str) -> Space {
        Space::at(Path::new(&format!("/run/netns/cl-{}-{host}", self.name())))
    }

    /// The network of a container.
    ///
    /// # Panics
    /// When it does not run.
    pub fn space_of(&self, host: &str, container: &str) -> Space {
        let inspected = self.get(host, &format!("/containers/{container}/json"));
        let pid = inspected.and_then(|it| it["State"]["Pid"].as_u64()).filter(|pid| *pid != 0);
        let pid = pid.unwrap_or_else(|| panic!("{container} does not run on {host}"));
        // The number is that of the host's own process namespace.
        Space::at(&self.root(host).join(format!("proc/{pid}/ns/net")))
    }

    /// The routers of the networks that a host carries.
    pub fn routers(&self, host: &str) -> Vec<Space> {
        let entries = fs::read_dir(self.root(host).join("run/covey/netns")).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.path()).collect();
        names.sort();
        names.iter().map(|path| Space::at(path)).collect()
    }

    /// What a host has as its root directory.
    ///
    /// # Panics
    /// When it is down.
    pub fn root(&self, host: &str) -> std::path::PathBuf {
        let init = fs::read_to_string(self.directory(host).join("init")).expect("the host is up");
        Path::new("/proc").join(init.split(' ').next().unwrap_or_default()).join("root")
    }
}

/// Asks a witness over TCP, from where this thread is.
///
/// # Errors
/// It cannot be reached, or says nothing that makes sense.
pub fn tcp(to: &str) -> io::Result<Testimony> {
    let mut connection = Connection::open(to)?;
    connection.ask()
}

/// Asks a witness over UDP, once, from where this thread is.
///
/// # Errors
/// As above.
pub fn udp(to: &str, patience: Duration) -> io::Result<Testimony> {
    let to = address(to)?;
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    ask_by(&socket, patience)
}

/// Asks a witness by a connected socket, once.
///
/// # Errors
/// As above.
pub fn ask_by(socket: &UdpSocket, patience: Duration) -> io::Result<Testimony> {
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"who\n")?;
    let mut answer = [0; ANSWER_BYTES_MAX];
    let length = socket.recv(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer[..length]))
}

/// A connection to a witness.
#[derive(Debug)]
pub struct Connection(TcpStream);

impl Connection {
    /// Connects, from where this thread is.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn open(to: &str) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address(to)?, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        Ok(Self(stream))
    }

    /// Asks once more.
    ///
    /// # Errors
    /// It is over, or says nothing that makes sense.
    pub fn ask(&mut self) -> io::Result<Testimony> {
        io::Write::write_all(&mut self.0, b"who\n")?;
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(&self.0), &mut line)?;
        parse(&line)
    }
}

fn address(text: &str) -> io::Result<SocketAddr> {
    text.parse().map_err(|error| io::Error::other(format!("{text}: {error}")))
}

fn parse(line: &str) -> io::Result<Testimony> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["host", host, "address", address, "client", client] => {
            let parsed = |text: &str| text.parse::<IpAddr>().map_err(io::Error::other);
            Ok(Testimony { host: host.to_owned(), address: parsed(address)?, client: parsed(client)? })
        }
        _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("no answer: {line:?}"))),
    }
}
