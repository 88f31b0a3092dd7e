//! A task that answers, and clients that ask it who it is and whom it sees.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Lab, PATIENCE, PAUSE};

/// Bytes of a question or an answer.
const WORDS_MAX: usize = 256;

/// Answers on one port, by TCP and UDP, IPv4 and IPv6: its name and the client's address. By TCP it says so at once,
/// and then to every byte that it is sent.
pub struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(lab: &Lab, name: &'static str, port: u16) -> Self {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let (tcp, udp) = lab.inside(name, || Ok((TcpListener::bind(any)?, UdpSocket::bind(any)?))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || serve(name, &tcp, &udp, &stopped));
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            eprintln!("server failed: {panic:?}");
        }
    }
}

fn words(name: &str, client: SocketAddr) -> String {
    format!("{name} {}", client.ip().to_canonical())
}

fn serve(name: &str, tcp: &TcpListener, udp: &UdpSocket, stop: &AtomicBool) {
    let mut streams: Vec<TcpStream> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let fds = [tcp.as_fd(), udp.as_fd()].into_iter().chain(streams.iter().map(AsFd::as_fd));
        let mut fds: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        poll(&mut fds, PollTimeout::try_from(PAUSE).unwrap()).unwrap();
        let ready: Vec<_> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        let mut number = 1;
        streams.retain_mut(|stream| {
            number += 1;
            let mut byte = [0];
            !ready[number]
                || matches!(stream.read(&mut byte), Ok(1..))
                    && stream
                        .peer_addr()
                        .is_ok_and(|peer| stream.write_all(words(name, peer).as_bytes()).is_ok())
        });
        if ready[0]
            && let Ok((mut stream, peer)) = tcp.accept()
            && stream.write_all(words(name, peer).as_bytes()).is_ok()
        {
            streams.push(stream);
        }
        if ready[1] {
            let (_, client) = udp.recv_from(&mut [0; WORDS_MAX]).unwrap();
            // The client may have gone.
            let _ = udp.send_to(words(name, client).as_bytes(), client);
        }
    }
}

pub fn read(mut stream: &TcpStream) -> io::Result<String> {
    let mut buffer = [0; WORDS_MAX];
    match stream.read(&mut buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => Ok(String::from_utf8_lossy(&buffer[..length]).into_owned()),
    }
}

/// Asks by a new TCP connection.
pub fn ask_tcp(lab: &Lab, from: &str, to: SocketAddr) -> io::Result<String> {
    read(&lab.connect(from, to)?)
}

/// Asks by UDP until an answer comes.
pub fn ask_udp(client: &UdpSocket, to: SocketAddr) -> io::Result<String> {
    let (begun, mut buffer) = (Instant::now(), [0; WORDS_MAX]);
    client.connect(to)?;
    while begun.elapsed() < PATIENCE {
        client.send(b"?")?;
        match client.recv(&mut buffer) {
            Ok(length) => return Ok(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}
