//! What is no name of ours is asked of the host's resolvers, from the host's network namespace.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hickory_proto::op::{Message, ResponseCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

use crate::message::Asked;

/// Most questions of all containers together that wait for other servers; each has a socket of its own.
const FORWARDS_MAX: usize = 512;
/// Most servers that are tried for one question; clients give up meanwhile (after 5 s, resolv.conf(5)).
const SERVERS_MAX: usize = 3;
/// How long one server is waited for, over UDP and TCP together.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most bytes of an answer over UDP: more than we say that we take.
const ANSWER_MAX: usize = 4096;

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
    pub(crate) async fn ask(&self, asked: &Asked, servers: &[SocketAddr]) -> Message {
        let mut failure = asked.reply(ResponseCode::ServFail);
        let Ok(_place) = self.places.try_acquire() else { return failure };
        for server in servers.iter().take(SERVERS_MAX) {
            match timeout(PATIENCE, ask(asked, *server)).await {
                Ok(Ok(answer)) if is_final(&answer) => return asked.relayed(answer),
                Ok(Ok(refusal)) => failure = asked.relayed(refusal),
                Ok(Err(error)) => tracing::debug!(%server, %error, "a resolver of the host cannot be asked"),
                Err(_) => tracing::debug!(%server, "a resolver of the host does not answer"),
            }
        }
        failure
    }
}

/// Whether another server would say the same: this one knows the name, or that there is none.
fn is_final(answer: &Message) -> bool {
    matches!(answer.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
}

async fn ask(asked: &Asked, server: SocketAddr) -> io::Result<Message> {
    let answer = over_udp(asked, server).await?;
    if !answer.metadata.truncation {
        return Ok(answer);
    }
    over_tcp(asked, server).await
}

async fn over_udp(asked: &Asked, server: SocketAddr) -> io::Result<Message> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
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

async fn over_tcp(asked: &Asked, server: SocketAddr) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let id = rand::random();
    let query = asked.forwarded(id).to_vec().map_err(io::Error::other)?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &query].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    asked.answer_in(id, &answer).ok_or_else(|| io::Error::other("an answer to another question"))
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
        let servers = [SocketAddr::from(([192, 0, 2, 1], 53))];
        let mut ask = Box::pin(forwarder.ask(&asked, &servers));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let std::task::Poll::Ready(answer) = ask.as_mut().poll(&mut context) else { panic!("waits") };
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    }
}
