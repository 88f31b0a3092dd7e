//! Creates services of no replicas over several connections to a daemon's socket, and prints how many a second it took:
//! `create_services SOCKET COUNT CONNECTIONS`.
#![allow(clippy::disallowed_methods, reason = "door: a program of its own, one thread a connection")]

use std::{
    env,
    error::Error,
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    process,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

/// Bytes of an answer that are read at most.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = env::args().collect();
    let [_, socket, count, connections] = &words[..] else {
        return Err("usage: create_services SOCKET COUNT CONNECTIONS".into());
    };
    let (count, connections) = (count.parse()?, connections.parse::<usize>()?);
    let streams = (0..connections).map(|_| UnixStream::connect(socket)).collect::<io::Result<Vec<_>>>()?;
    let next = AtomicUsize::new(0);
    let begin = Instant::now();
    thread::scope(|scope| {
        let workers: Vec<_> =
            streams.iter().map(|stream| scope.spawn(|| create(stream, &next, count))).collect();
        // A thread that panicked has said so.
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or(Ok(())))
    })?;
    println!("{:.1}", count as f64 / begin.elapsed().as_secs_f64());
    Ok(())
}

/// Takes numbers until there are none left, and creates a service of each.
fn create(stream: &UnixStream, next: &AtomicUsize, count: usize) -> io::Result<()> {
    let mut answers = BufReader::new(stream);
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return Ok(());
        }
        let body = format!(
            r#"{{"Name":"rate-{}-{number}","TaskTemplate":{{"ContainerSpec":{{"Image":"busybox:latest"}}}},"Mode":{{"Replicated":{{"Replicas":0}}}}}}"#,
            process::id()
        );
        let request = format!(
            "POST /v1.41/services/create HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut writer = stream;
        writer.write_all(request.as_bytes())?;
        answered(&mut answers)?;
    }
}

/// Reads one answer, which has to be that the service was created.
fn answered(answers: &mut impl BufRead) -> io::Result<()> {
    let mut status = String::new();
    answers.read_line(&mut status)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if answers.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    if length > ANSWER_BYTES_MAX {
        return Err(io::Error::other("the answer is too long"));
    }
    let mut body = vec![0; length];
    answers.read_exact(&mut body)?;
    if status.split(' ').nth(1) != Some("201") {
        return Err(io::Error::other(format!("{} {}", status.trim_end(), String::from_utf8_lossy(&body))));
    }
    Ok(())
}
