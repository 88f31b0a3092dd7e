//! The other end of `probe`: a server that sends back, answers or swallows.
#![allow(clippy::disallowed_methods, reason = "door: a program of its own, one thread a connection")]

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
};

/// Every byte comes back.
const ECHO: u16 = 7000;
/// One request and its answer, then the end, as of an HTTP server that keeps nothing alive.
const ONCE: u16 = 7001;
/// All is swallowed; at the end the count of bytes comes back.
const SINK: u16 = 7002;

/// Threads that answer once.
const AT_ONCE: usize = 16;
/// Bytes of one read of what is swallowed.
const CHUNK_BYTES: usize = 128 * 1024;

fn main() -> io::Result<()> {
    let listen = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
    let (echo, once, sink) = (listen(ECHO)?, listen(ONCE)?, listen(SINK)?);
    thread::spawn(move || {
        each(&echo, |stream| stream.set_nodelay(true).and_then(|()| io::copy(&mut &stream, &mut &stream)))
    });
    thread::spawn(move || each(&sink, swallow));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            // One that breaks is the client's to notice.
            scope
                .spawn(|| once.incoming().for_each(|stream| drop(stream.and_then(|stream| answer(&stream)))));
        }
    });
    Ok(())
}

/// Serves each connection in a thread of its own.
fn each<T: 'static>(listener: &TcpListener, serve: fn(TcpStream) -> io::Result<T>) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || drop(serve(stream)));
    }
}

fn swallow(mut stream: TcpStream) -> io::Result<()> {
    let (mut buffer, mut sum) = (vec![0; CHUNK_BYTES], 0_u64);
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.write_all(&sum.to_be_bytes()),
            count => sum += count as u64,
        }
    }
}

/// Says who asks.
fn answer(mut stream: &TcpStream) -> io::Result<()> {
    if stream.read(&mut [0; 1024])? == 0 {
        return Ok(());
    }
    let body = format!("{}\n", stream.peer_addr()?.ip());
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
