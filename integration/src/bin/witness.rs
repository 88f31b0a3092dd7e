//! What tasks of the tests run: says who was asked, and by whom. `witness [PORT…]` (80 by default) answers over TCP and
//! UDP; at port 53 it speaks DNS. A line it is sent, or the head of an HTTP request, is answered by one line; a
//! connection stays open until the other side closes it, or its request was HTTP.
//!
//! Of the environment: `WITNESS_STOP=MS` is the time that it takes to end by SIGTERM, `WITNESS_LIFE=MS` that after which
//! it ends by itself.
#![allow(clippy::disallowed_methods, reason = "door: a program of its own, one thread a connection")]

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process, ptr, thread,
    time::Duration,
};

/// Bytes of a request at most.
const REQUEST_BYTES_MAX: usize = 4096;
/// Bytes in front of a DNS message's question (RFC 1035, 4.1.1).
const HEADER: usize = 12;
/// Types of records: an address, and words.
const TYPE_A: u16 = 1;
const TYPE_TXT: u16 = 16;
/// What every name is, for a witness at port 53.
const ANSWER: [u8; 4] = [192, 0, 2, 53];

fn main() -> io::Result<()> {
    let ports: Vec<u16> = env::args().skip(1).filter_map(|port| port.parse().ok()).collect();
    let ports = if ports.is_empty() { vec![80] } else { ports };
    let mut threads = Vec::new();
    for port in ports {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
        threads.push(thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes in the middle is nothing to speak of.
                thread::spawn(move || if port == 53 { dns_stream(stream) } else { lines(stream) });
            }
        }));
        threads.push(thread::spawn(move || datagrams(&socket, port)));
    }
    if let Some(life) = milliseconds("WITNESS_LIFE") {
        thread::sleep(life);
        process::exit(0);
    }
    wait_for_the_end();
    thread::sleep(milliseconds("WITNESS_STOP").unwrap_or_default());
    Ok(())
}

fn milliseconds(name: &str) -> Option<Duration> {
    Some(Duration::from_millis(env::var(name).ok()?.parse().ok()?))
}

/// Process 1 of a container hears only the signals that it asks for.
fn wait_for_the_end() {
    // SAFETY: the set is a plain structure that `sigemptyset` fills, and lives for all calls.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut());
        libc::sigwaitinfo(&raw const set, ptr::null_mut());
    }
}

fn host() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim_end().to_owned()
}

fn testimony(address: IpAddr, client: SocketAddr) -> String {
    format!("host {} address {} client {}\n", host(), address.to_canonical(), client.ip().to_canonical())
}

fn lines(mut stream: TcpStream) -> io::Result<()> {
    let (address, client) = (stream.local_addr()?.ip(), stream.peer_addr()?);
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while (&mut reader).take(REQUEST_BYTES_MAX as u64).read_line(&mut line)? > 0 {
        let body = testimony(address, client);
        if !line.contains("HTTP/") {
            stream.write_all(body.as_bytes())?;
            line.clear();
            continue;
        }
        while !line.trim_end().is_empty() {
            line.clear();
            (&mut reader).take(REQUEST_BYTES_MAX as u64).read_line(&mut line)?;
        }
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        return stream.write_all((head + &body).as_bytes());
    }
    Ok(())
}

fn datagrams(socket: &UdpSocket, port: u16) {
    let mut buffer = [0; REQUEST_BYTES_MAX];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
        let answer = match port {
            53 => dns(&buffer[..length]),
            // The address it was asked at is not known of a datagram: the answer says that of the socket.
            _ => socket.local_addr().ok().map(|own| testimony(own.ip(), client).into_bytes()),
        };
        // A client that is gone is nothing to speak of.
        let _ = answer.map(|answer| socket.send_to(&answer, client));
    }
}

fn dns_stream(mut stream: TcpStream) -> io::Result<()> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut question = vec![0; usize::from(u16::from_be_bytes(length)).min(REQUEST_BYTES_MAX)];
    stream.read_exact(&mut question)?;
    let answer = dns(&question).unwrap_or_default();
    stream.write_all(&(answer.len() as u16).to_be_bytes())?;
    stream.write_all(&answer)
}

/// Every name has the address [`ANSWER`], and this host's name in words.
fn dns(message: &[u8]) -> Option<Vec<u8>> {
    let mut end = HEADER;
    while *message.get(end)? != 0 {
        end += usize::from(message[end]) + 1;
    }
    let kind = u16::from_be_bytes([*message.get(end + 1)?, *message.get(end + 2)?]);
    let question = message.get(HEADER..end + 5)?;
    let record = match kind {
        TYPE_A => Some(ANSWER.to_vec()),
        TYPE_TXT => Some([&[host().len() as u8], host().as_bytes()].concat()),
        _ => None,
    };
    let mut answer = message[..2].to_vec();
    // An answer, with authority, to one question.
    answer.extend([0x84, 0, 0, 1, 0, u8::from(record.is_some()), 0, 0, 0, 0]);
    answer.extend(question);
    if let Some(record) = record {
        // The name of the question, its type and class, no time to live.
        answer.extend([0xc0, HEADER as u8]);
        answer.extend(
            [kind.to_be_bytes(), [0, 1], [0, 0], [0, 0], (record.len() as u16).to_be_bytes()].concat(),
        );
        answer.extend(record);
    }
    Some(answer)
}
