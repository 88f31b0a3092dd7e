//! What is no name of ours is asked of other servers: the host's from the host, the container's own from the container.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use hickory_proto::op::{Message, ResponseCode};
use tokio::{
    net::{TcpSocket, UdpSocket},
    sync::Semaphore,
    task::spawn_blocking,
    time::timeout,
};

use crate::{
    framed::{read_framed, write_framed},
    message::{Asked, TCP_MAX},
    sockets::inside,
};

/// Most questions of all containers together that wait for other servers; each has a socket of its own.
const FORWARDS_MAX: usize = 512;
/// Most servers that are tried for one question, as many as the C library takes (resolv.conf(5), MAXNS): clients give up
/// meanwhile, after 5 s.
const SERVERS_MAX: usize = 3;
/// How long one server is waited for, over UDP and TCP together.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most bytes of an answer over UDP: more than we say that we take.
const ANSWER_MAX: usize = 4096;

/// Whom to ask.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// In this order.
    pub servers: Vec<SocketAddr>,
    /// The network namespace in which they are reached; none: the one that the resolvers' runtime is in.
    pub namespace: Option<PathBuf>,
}

/// Asks other servers, for all containers of the host. Each question has a socket of its own, so that neither its
/// port nor its id can be guessed from another.
#[derive(Debug)]
pub struct Forwarder {
    places: Semaphore,
}

impl Default for Forwarder {
    fn default() -> Self {
        Self { places: Semaphore::new(FORWARDS_MAX) }
    }
}

impl Forwarder {
    /// The answer of the first of those servers that has one; a failure if none has or if too many are waiting.
    pub(crate) async fn ask(&self, asked: &Asked, way: &Way) -> Message {
        let mut failure = asked.reply(ResponseCode::ServFail);
        let Ok(_place) = self.places.try_acquire() else { return failure };
        for server in way.servers.iter().take(SERVERS_MAX) {
            match timeout(PATIENCE, way.ask(asked, *server)).await {
                Ok(Ok(answer)) if is_final(&answer) => return asked.relayed(answer),
                Ok(Ok(refusal)) => failure = asked.relayed(refusal),
                Ok(Err(error)) => tracing::debug!(%server, %error, "a resolver cannot be asked"),
                Err(_) => tracing::debug!(%server, "a resolver does not answer"),
            }
        }
        failure
    }
}

/// Whether another server would say the same: this one knows the name, or that there is none.
fn is_final(answer: &Message) -> bool {
    matches!(answer.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
}

impl Way {
    async fn ask(&self, asked: &Asked, server: SocketAddr) -> io::Result<Message> {
        let answer = self.over_udp(asked, server).await?;
        if !answer.metadata.truncation {
            return Ok(answer);
        }
        self.over_tcp(asked, server).await
    }

    async fn over_udp(&self, asked: &Asked, server: SocketAddr) -> io::Result<Message> {
        let any = match server {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = self.made(move || std::net::UdpSocket::bind(any)).await?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        // From now on the kernel drops what others send.
        socket.connect(server).await?;
        let id = rand::random();
        socket.send(&asked.forwarded(id).to_vec().map_err(io::Error::other)?).await?;
        let mut buffer = vec![0; ANSWER_MAX];
        loop {
            let length = socket.recv(&mut buffer).await?;
            // Anything else may be a forgery: the true answer may still come.
            if let Some(answer) = asked.answer_in(id, &buffer[..length]) {
                return Ok(answer);
            }
        }
    }

    async fn over_tcp(&self, asked: &Asked, server: SocketAddr) -> io::Result<Message> {
        let socket = match server {
            SocketAddr::V4(_) => self.made(TcpSocket::new_v4).await?,
            SocketAddr::V6(_) => self.made(TcpSocket::new_v6).await?,
        };
        let mut stream = socket.connect(server).await?;
        let id = rand::random();
        let query = asked.forwarded(id).to_vec().map_err(io::Error::other)?;
        write_framed(&mut stream, &query).await?;
        let answer = read_framed(&mut stream, TCP_MAX).await?;
        asked.answer_in(id, &answer).ok_or_else(|| io::Error::other("an answer to another question"))
    }

    /// A socket where the servers are reached: it stays in the namespace in which it was made.
    async fn made<T: Send + 'static>(
        &self,
        make: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        match self.namespace.clone() {
            None => make(),
            Some(namespace) => spawn_blocking(move || inside(&namespace, make)).await?,
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{MessageType, OpCode, Query},
        rr::{Name, RecordType},
    };

    use super::*;

    #[test]
    fn what_exceeds_the_bound_of_the_host_fails_at_once() {
        let mut query = Message::new(1, MessageType::Query, OpCode::Query);
        query.add_query(Query::query(Name::from_ascii("example.com.").unwrap(), RecordType::A));
        let asked = Asked::read(&query.to_vec().unwrap()).unwrap();
        let forwarder = Forwarder::default();
        let _all = forwarder.places.try_acquire_many(FORWARDS_MAX as u32).unwrap();
        // Were this server asked, it would take a runtime.
        let way = Way { servers: vec![SocketAddr::from(([192, 0, 2, 1], 53))], namespace: None };
        let mut ask = Box::pin(forwarder.ask(&asked, &way));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let std::task::Poll::Ready(answer) = ask.as_mut().poll(&mut context) else { panic!("waits") };
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    }
}
