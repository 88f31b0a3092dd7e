//! Questions to the resolver of a container, as its C library would ask.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use crate::space::Space;

/// Types of records (RFC 1035, 3596, 2782).
pub const A: u16 = 1;
/// A name.
pub const PTR: u16 = 12;
/// Words.
pub const TXT: u16 = 16;
/// An address of IPv6.
pub const AAAA: u16 = 28;
/// A port and a name.
pub const SRV: u16 = 33;

/// The code of an answer that has what was asked for, or says that there is no such record.
pub const NO_ERROR: u8 = 0;
/// The code of a failure that passes.
pub const SERVER_FAILURE: u8 = 2;
/// The code for a name that does not exist.
pub const NO_SUCH_NAME: u8 = 3;

/// Where containers ask.
pub const RESOLVER: &str = "127.0.0.11:53";
/// How long an answer may take before it is asked for once more, and how often.
const PATIENCE: Duration = Duration::from_millis(1500);
const ATTEMPTS: u32 = 3;
const HEADER: usize = 12;
const MESSAGE_BYTES_MAX: usize = 65_535;

/// What was answered: the code, and the records as text (`port target` for SRV), in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The code.
    pub code: u8,
    /// Its records of the type that was asked for.
    pub records: Vec<String>,
}

impl Space {
    /// Asks the resolver in this container over UDP.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn resolve(&self, name: &str, kind: u16) -> Reply {
        self.run(|| over_udp(RESOLVER, name, kind)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The addresses of a name, sorted; none where it has none.
    pub fn addresses(&self, name: &str) -> Vec<String> {
        let mut found = self.resolve(name, A).records;
        found.sort();
        found
    }
}

/// Asks a server over UDP, from where this thread is.
///
/// # Errors
/// It does not answer.
pub fn over_udp(server: &str, name: &str, kind: u16) -> io::Result<Reply> {
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for _ in 0..ATTEMPTS {
        match Asked::over_udp(server, name, kind)?.answer(PATIENCE) {
            Ok(reply) => return Ok(reply),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A question that was sent once.
#[derive(Debug)]
pub struct Asked {
    socket: UdpSocket,
    kind: u16,
}

impl Asked {
    /// Sends it, from where this thread is.
    ///
    /// # Errors
    /// There is no way to the server.
    pub fn over_udp(server: &str, name: &str, kind: u16) -> io::Result<Self> {
        let server: SocketAddr = server.parse().map_err(io::Error::other)?;
        let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.connect(server)?;
        socket.send(&question(1, name, kind))?;
        Ok(Self { socket, kind })
    }

    /// The answer, which may have come already.
    ///
    /// # Errors
    /// It does not come in this time, or makes no sense.
    pub fn answer(self, patience: Duration) -> io::Result<Reply> {
        self.socket.set_read_timeout(Some(patience))?;
        let mut answer = vec![0; MESSAGE_BYTES_MAX];
        let length = self.socket.recv(&mut answer)?;
        parse(&answer[..length], self.kind).ok_or_else(nonsense)
    }
}

/// Asks a server over TCP, from where this thread is.
///
/// # Errors
/// It does not answer.
pub fn over_tcp(server: &str, name: &str, kind: u16) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let question = question(1, name, kind);
    stream.write_all(&[&(question.len() as u16).to_be_bytes(), &question[..]].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    parse(&answer, kind).ok_or_else(nonsense)
}

fn nonsense() -> io::Error {
    io::Error::other("an answer that makes no sense")
}

/// One question, with recursion desired.
fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]))
}

/// The name at this place, and where it ends.
fn name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut labels, mut end) = (Vec::new(), None);
    for _ in 0..128 {
        match usize::from(*message.get(at)?) {
            0 => return Some((labels.join("."), end.unwrap_or(at + 1))),
            pointer if pointer >= 0xc0 => {
                end = end.or(Some(at + 2));
                at = usize::from(number(message, at)? & 0x3fff);
            }
            length => {
                labels.push(String::from_utf8_lossy(message.get(at + 1..=at + length)?).into_owned());
                at += length + 1;
            }
        }
    }
    None
}

fn parse(message: &[u8], wanted: u16) -> Option<Reply> {
    let code = message.get(3)? & 0xf;
    let (_, mut at) = name(message, HEADER)?;
    at += 4;
    let mut records = Vec::new();
    for _ in 0..number(message, 6)? {
        (_, at) = name(message, at)?;
        let (kind, length) = (number(message, at)?, usize::from(number(message, at + 8)?));
        at += 10;
        let data = message.get(at..at + length)?;
        if kind == wanted {
            records.push(match kind {
                A => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?)).to_string(),
                AAAA => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?)).to_string(),
                PTR => name(message, at)?.0,
                SRV => format!("{} {}", number(message, at + 4)?, name(message, at + 6)?.0),
                _ => String::from_utf8_lossy(data.get(1..)?).into_owned(),
            });
        }
        at += length;
    }
    Some(Reply { code, records })
}
