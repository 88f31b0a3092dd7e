//! One container's resolver: reads its sockets, answers what its networks know, has the rest asked elsewhere.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use covey_mesh::names::{Answer, View, Zone};
use hickory_proto::op::{Message, ResponseCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::{
    forward::Forwarder,
    message::{Asked, QUERY_MAX, TCP_MAX, UDP_MIN, Unanswerable, fitted},
    sockets::Sockets,
};

/// Most questions of one container over UDP that wait for other servers; what comes on top is dropped.
const IN_FLIGHT_MAX: usize = 64;
/// Most TCP connections of one container; what comes on top waits for one to end, as many as the kernel lets wait.
const CONNECTIONS_MAX: usize = 16;
/// Datagrams of one container after which the others have their turn.
const BURST: usize = 32;
/// How long a connection may be idle, or may take to bring a query or to take an answer.
const IDLE: Duration = Duration::from_secs(10);
/// How long is waited after a failure of a socket, which may last.
const PAUSE: Duration = Duration::from_millis(100);

/// Who knows what our networks do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outside {
    /// Nobody: there is nothing outside for this container. A name that its networks do not know does not exist, and
    /// clients hear that at once.
    Nothing,
    /// Those, in this order, as seen from the host. With none of them, names outside fail for the time being.
    Servers(Vec<SocketAddr>),
}

/// What one container sees. Changes of a zone in its `watch` channel, and of the scope in its own, count from the next
/// question on.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Its host name.
    pub host: String,
    /// Addresses behind its host name.
    pub addresses: Vec<IpAddr>,
    /// Its networks, in order of precedence, each once.
    pub zones: Vec<watch::Receiver<Zone>>,
    /// Who is asked for everything else.
    pub outside: Outside,
}

/// A container's resolver at work. It stops when dropped; what is asked from then on waits in the sockets if
/// duplicates of them are open.
#[derive(Debug)]
pub struct Resolver {
    tasks: [AbortHandle; 2],
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Resolver {
    /// Starts to answer on these sockets. To be called within a runtime whose threads are in the host's network
    /// namespace.
    ///
    /// # Errors
    /// The runtime cannot watch the sockets.
    pub fn spawn(
        sockets: Sockets,
        scope: watch::Receiver<Scope>,
        forwarder: Arc<Forwarder>,
    ) -> io::Result<Self> {
        let udp = UdpSocket::from_std(sockets.udp)?;
        let tcp = TcpListener::from_std(sockets.tcp)?;
        // Not every container begins with the same task.
        let desk = Arc::new(Desk { scope, forwarder, turn: AtomicU64::new(rand::random()) });
        let datagrams = tokio::spawn(serve_datagrams(Arc::new(udp), desk.clone()));
        let connections = tokio::spawn(serve_connections(tcp, desk));
        Ok(Self { tasks: [datagrams.abort_handle(), connections.abort_handle()] })
    }
}

/// What both sockets of a container share.
struct Desk {
    scope: watch::Receiver<Scope>,
    forwarder: Arc<Forwarder>,
    /// Counts questions.
    turn: AtomicU64,
}

/// The next step for a question.
enum Step {
    Reply(Box<Message>),
    Forward(Vec<SocketAddr>),
}

impl Desk {
    fn step(&self, asked: &Asked) -> Step {
        let scope = self.scope.borrow();
        let answer = asked.question().map_or(Answer::Unknown, |question| {
            let zones: Vec<_> = scope.zones.iter().map(watch::Receiver::borrow).collect();
            let zones = zones.iter().map(|zone| &**zone).collect();
            let view = View { host: &scope.host, addresses: &scope.addresses, zones };
            view.answer(&question, self.turn.fetch_add(1, Ordering::Relaxed))
        });
        match (asked.answered(answer), &scope.outside) {
            (Some(message), _) => Step::Reply(message.into()),
            (None, Outside::Nothing) => Step::Reply(asked.reply(ResponseCode::NXDomain).into()),
            (None, Outside::Servers(servers)) => Step::Forward(servers.clone()),
        }
    }

    async fn reply(&self, asked: &Asked) -> Message {
        match self.step(asked) {
            Step::Reply(message) => *message,
            Step::Forward(servers) => self.forwarder.ask(asked, &servers).await,
        }
    }
}

async fn serve_datagrams(socket: Arc<UdpSocket>, desk: Arc<Desk>) {
    let mut forwards = JoinSet::new();
    loop {
        let ready = tokio::select! {
            ready = socket.readable() => ready,
            Some(_) = forwards.join_next() => continue,
        };
        if ready.is_err() || take_burst(&socket, &desk, &mut forwards).is_err() {
            sleep(PAUSE).await;
        }
        tokio::task::yield_now().await;
    }
}

/// Takes what is there, up to a bound. What our networks know is answered at once.
fn take_burst(socket: &Arc<UdpSocket>, desk: &Arc<Desk>, forwards: &mut JoinSet<()>) -> io::Result<()> {
    // One byte more than the longest query shows one that is longer.
    let mut buffer = [0; QUERY_MAX + 1];
    for _ in 0..BURST {
        let (length, client) = match socket.try_recv_from(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            received => received?,
        };
        if length > QUERY_MAX {
            continue;
        }
        while forwards.try_join_next().is_some() {}
        let (message, room) = match Asked::read(&buffer[..length]) {
            Err(Unanswerable::Silent) => continue,
            Err(Unanswerable::Refused(message)) => (message, UDP_MIN),
            Ok(asked) => match desk.step(&asked) {
                Step::Reply(message) => (message, asked.room()),
                // Dropped: the client asks again, when there may be room.
                Step::Forward(_) if forwards.len() >= IN_FLIGHT_MAX => continue,
                Step::Forward(servers) => {
                    forwards.spawn(forward(socket.clone(), desk.clone(), asked, servers, client));
                    continue;
                }
            },
        };
        if let Some(bytes) = fitted(*message, room) {
            // If there is no room to send it, the client asks again.
            let _ = socket.try_send_to(&bytes, client);
        }
    }
    Ok(())
}

async fn forward(
    socket: Arc<UdpSocket>,
    desk: Arc<Desk>,
    asked: Asked,
    servers: Vec<SocketAddr>,
    client: SocketAddr,
) {
    let message = desk.forwarder.ask(&asked, &servers).await;
    if let Some(bytes) = fitted(message, asked.room()) {
        // If it cannot be sent, the client asks again.
        let _ = socket.send_to(&bytes, client).await;
    }
}

async fn serve_connections(listener: TcpListener, desk: Arc<Desk>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                let desk = desk.clone();
                // However it ends, it is over; the client sees that too.
                connections.spawn(async move { drop(converse(stream, &desk).await) });
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Answers queries one after the other until the client leaves, is idle, or sends what is not DNS.
async fn converse(mut stream: TcpStream, desk: &Desk) -> io::Result<()> {
    loop {
        let query = timeout(IDLE, read_query(&mut stream)).await??;
        let message = match Asked::read(&query) {
            Err(Unanswerable::Silent) => return Ok(()),
            Err(Unanswerable::Refused(message)) => *message,
            Ok(asked) => desk.reply(&asked).await,
        };
        let Some(bytes) = fitted(message, TCP_MAX) else { return Ok(()) };
        let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        timeout(IDLE, stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat())).await??;
    }
}

async fn read_query(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > QUERY_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut query = vec![0; length];
    stream.read_exact(&mut query).await?;
    Ok(query)
}
