//! What a client of a network sees, of `echo` at its other end:
//! `probe rtt|connect|bulk|retry ADDRESS[:PORT] | name NAME`.
#![allow(clippy::disallowed_methods, reason = "door: a program of its own, one thread a connection")]

use std::{
    env,
    error::Error,
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Where `echo` sends every byte back, answers a connection once, and swallows all.
const ECHO: u16 = 7000;
const ONCE: u16 = 7001;
const SINK: u16 = 7002;
/// Who names are asked of in a container.
const RESOLVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);

/// How long it measures.
const LIMIT: Duration = Duration::from_secs(1);
/// Connections at a time of `connect`.
const AT_ONCE: usize = 16;
/// Between two attempts of `retry` and `name`.
const PAUSE: Duration = Duration::from_millis(2);
/// After which a request of `retry` has failed.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same for one of `name`, which only wants to be early.
const IMPATIENCE: Duration = Duration::from_millis(20);
/// The same for its question: a name that is known here is told at once; of any other somebody outside is asked, who may be
/// silent.
const HASTE: Duration = Duration::from_millis(3);
/// Bytes of one write of `bulk`.
const CHUNK_BYTES: usize = 128 * 1024;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n";

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["rtt", to] => println!("{:.2}", rtt(&address(to, ECHO)?)?),
        ["connect", to] => println!("{:.0}", connect(&address(to, ONCE)?)?),
        ["bulk", to] => println!("{:.3}", bulk(&address(to, SINK)?)?),
        ["retry", to] => retry(&address(to, ONCE)?)?,
        ["name", name] => println!("{:.6}", named(name)?),
        _ => return Err("usage: probe rtt|connect|bulk|retry ADDRESS[:PORT] | name NAME".into()),
    }
    Ok(())
}

/// ADDRESS, or ADDRESS:PORT where another port leads there.
fn address(to: &str, port: u16) -> Outcome<SocketAddr> {
    Ok(to.parse().or_else(|_| to.parse().map(|ip| SocketAddr::new(ip, port)))?)
}

/// Asks once on a new connection; what was answered after the head.
fn ask(to: &SocketAddr, patience: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(REQUEST)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (_, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(body.trim_end().to_owned())
}

/// The median of round trips of 64 bytes on one connection, in microseconds.
fn rtt(to: &SocketAddr) -> io::Result<f64> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    let (mut took, begun, mut buffer) = (Vec::new(), Instant::now(), [0; 64]);
    while begun.elapsed() < LIMIT {
        let sent = Instant::now();
        stream.write_all(&buffer)?;
        stream.read_exact(&mut buffer)?;
        took.push(sent.elapsed());
    }
    took.sort();
    Ok(took[took.len() / 2].as_secs_f64() * 1e6)
}

/// New connections a second, each with a request and its answer.
fn connect(to: &SocketAddr) -> io::Result<f64> {
    let begun = Instant::now();
    let count = || {
        let mut count = 0_u32;
        while begun.elapsed() < LIMIT {
            ask(to, PATIENCE)?;
            count += 1;
        }
        Ok::<_, io::Error>(count)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(count)).collect();
        let counts =
            threads.into_iter().map(|thread| thread.join().map_err(|_| io::Error::other("a panic"))?);
        Ok(f64::from(counts.sum::<io::Result<u32>>()?) / begun.elapsed().as_secs_f64())
    })
}

/// Gigabits a second that arrive over one connection.
fn bulk(to: &SocketAddr) -> io::Result<f64> {
    let mut stream = TcpStream::connect(to)?;
    let (chunk, begun, mut sum) = (vec![0; CHUNK_BYTES], Instant::now(), [0; 8]);
    while begun.elapsed() < LIMIT {
        stream.write_all(&chunk)?;
    }
    stream.shutdown(Shutdown::Write)?;
    stream.read_exact(&mut sum)?;
    Ok(u64::from_be_bytes(sum) as f64 * 8e-9 / begun.elapsed().as_secs_f64())
}

/// Seconds since 1970.
fn clock() -> Outcome<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

/// Asks for ever: whom it is taken for, then of each failure when it was noticed, and what it was.
fn retry(to: &SocketAddr) -> Outcome<()> {
    println!("{}", ask(to, PATIENCE)?);
    loop {
        if let Err(error) = ask(to, PATIENCE) {
            println!("{:.6} {error}", clock()?);
        }
        thread::sleep(PAUSE);
    }
}

/// Asks for a name until one whom it leads to answers; when that was.
fn named(name: &str) -> Outcome<f64> {
    loop {
        if lookup(name).and_then(|ip| ask(&(ip, ONCE).into(), IMPATIENCE)).is_ok() {
            return clock();
        }
        thread::sleep(PAUSE);
    }
}

/// The first address of a name (RFC 1035); whatever else is an error.
fn lookup(name: &str) -> io::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(HASTE))?;
    let length = u8::try_from(name.len()).map_err(io::Error::other)?;
    let head = [7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, length];
    let query = [&head[..], name.as_bytes(), &[0, 0, 1, 0, 1]].concat();
    socket.send_to(&query, RESOLVER)?;
    let mut buffer = [0; 512];
    let size = socket.recv(&mut buffer)?;
    // Of an answer with one record of a name, its address is the end.
    match buffer[..size] {
        [7, 7, _, flags, _, _, 0, 1, .., a, b, c, d] if flags & 0xf == 0 => Ok([a, b, c, d].into()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}
