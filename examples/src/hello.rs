//! An HTTP server that answers with its host name, its task and the addresses of both ends: who served me?
#![allow(clippy::disallowed_methods, reason = "door: a program of its own, one thread a connection")]

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

/// Bytes of a request that are read at most.
const REQUEST_BYTES_MAX: u64 = 16 * 1024;

fn main() -> io::Result<()> {
    let address = env::var("LISTEN").unwrap_or_else(|_| "[::]:80".to_owned());
    let listener = TcpListener::bind(&address)?;
    println!("listening on {address}");
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            if let Err(error) = answer(stream) {
                eprintln!("connection: {error}");
            }
        });
    }
    Ok(())
}

/// Reads one request to its blank line, whatever it asks, and says who answers.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let lines = BufReader::new(io::Read::take(&stream, REQUEST_BYTES_MAX)).lines();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let task = env::var("TASK").unwrap_or_else(|_| "no task".to_owned());
    let body = format!(
        "host {} task {task} address {} client {}\n",
        host.trim_end(),
        stream.local_addr()?.ip().to_canonical(),
        stream.peer_addr()?.ip().to_canonical()
    );
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
