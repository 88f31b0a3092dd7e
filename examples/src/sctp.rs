//! A server of SCTP that says who asks, and its client: `sctp serve PORT | ask ADDRESS:PORT`.
#![allow(clippy::disallowed_methods, reason = "door: a program of its own")]

use std::{
    env,
    error::Error,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrStorage, bind, connect,
    getpeername, listen, socket,
};

/// Until an answer is given up.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", port] => serve(port.parse()?),
        ["ask", to] => {
            println!("{}", ask(to.parse()?)?);
            Ok(())
        }
        _ => Err("usage: sctp serve PORT | ask ADDRESS:PORT".into()),
    }
}

/// A socket that is used as those of TCP are (RFC 6458 section 4).
fn one_to_one() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Sctp)
}

fn serve(port: u16) -> Result<(), Box<dyn Error>> {
    let socket = one_to_one()?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)))?;
    listen(&socket, Backlog::MAXCONN)?;
    // Only its name says TCP: reading, writing and accepting are the same.
    for stream in TcpListener::from(socket).incoming() {
        let mut stream = stream?;
        let client: SockaddrStorage = getpeername(stream.as_raw_fd())?;
        let client = client.as_sockaddr_in().map_or(Ipv4Addr::UNSPECIFIED, SockaddrIn::ip);
        // A client that is gone already is none of ours.
        _ = writeln!(stream, "{client}");
    }
    Ok(())
}

fn ask(to: SocketAddrV4) -> Result<String, Box<dyn Error>> {
    let socket = one_to_one()?;
    connect(socket.as_raw_fd(), &SockaddrIn::from(to))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.trim_end().to_owned())
}
