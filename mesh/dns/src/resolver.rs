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
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use crate::{
    forward::{Forwarder, Way},
    framed::{read_framed, write_framed},
    message::{Asked, QUERY_MAX, TCP_MAX, UDP_MIN, Unanswerable, fitted},
    sockets::{ADDRESS, Place, Sockets, SocketsError},
};

/// Most questions of one container over UDP that wait, for other servers or for what is told of its networks; what
/// comes on top is dropped.
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
    /// The same as seen from the container: they may be in its networks, or in itself.
    Own(Vec<SocketAddr>),
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
    place: Place,
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
        let Sockets { udp, tcp, place } = sockets;
        let (udp, tcp) = (UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?);
        // Not every container begins with the same task.
        let turn = AtomicU64::new(rand::random());
        let desk = Arc::new(Desk { place: place.clone(), scope, forwarder, turn });
        let datagrams = tokio::spawn(serve_datagrams(Arc::new(udp), desk.clone()));
        let connections = tokio::spawn(serve_connections(tcp, desk));
        Ok(Self { place, tasks: [datagrams.abort_handle(), connections.abort_handle()] })
    }

    /// Leads what is sent to port 53 of 127.0.0.11 to these sockets, where nothing does or something else: a container
    /// may change its own rules. True if the rule had to be made. Blocks for some system calls.
    ///
    /// # Errors
    /// What rules there were are as they were.
    pub fn lead_here(&self) -> Result<bool, SocketsError> {
        self.place.lead_here()
    }

    /// Whether it leads here, without changing anything. Blocks for some system calls.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn is_led_here(&self) -> Result<bool, SocketsError> {
        self.place.is_led_here()
    }
}

/// What both sockets of a container share.
struct Desk {
    place: Place,
    scope: watch::Receiver<Scope>,
    forwarder: Arc<Forwarder>,
    /// Counts questions.
    turn: AtomicU64,
}

/// The next step for a question.
enum Step {
    Reply(Box<Message>),
    Forward(Way),
    /// Until all has been told of the container's networks.
    Wait,
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
        if answer == Answer::Unheard {
            return Step::Wait;
        }
        match asked.answered(answer) {
            Some(message) => Step::Reply(message.into()),
            None => self.outside(asked, &scope.outside),
        }
    }

    fn outside(&self, asked: &Asked, outside: &Outside) -> Step {
        match outside {
            Outside::Nothing => Step::Reply(asked.reply(ResponseCode::NXDomain).into()),
            Outside::Servers(servers) => Step::Forward(Way { servers: servers.clone(), namespace: None }),
            Outside::Own(servers) => {
                // There it is this resolver that would be asked.
                let others = servers.iter().filter(|server| server.ip() != ADDRESS);
                let namespace = Some(self.place.namespace.clone());
                Step::Forward(Way { servers: others.copied().collect(), namespace })
            }
        }
    }

    /// The answer, which may take a while.
    async fn reply(&self, asked: &Asked) -> Message {
        let mut step = self.step(asked);
        if let Step::Wait = step {
            self.hear_all().await;
            step = self.step(asked);
        }
        match step {
            Step::Reply(message) => *message,
            Step::Forward(way) => self.forwarder.ask(asked, &way).await,
            // The container has come into another network meanwhile.
            Step::Wait => asked.reply(ResponseCode::ServFail),
        }
    }

    async fn hear_all(&self) {
        let zones = self.scope.borrow().zones.clone();
        for mut zone in zones {
            // Of a network that is gone nothing more is told.
            let _ = zone.wait_for(Zone::is_whole).await;
        }
    }
}

async fn serve_datagrams(socket: Arc<UdpSocket>, desk: Arc<Desk>) {
    let mut late = JoinSet::new();
    loop {
        let ready = tokio::select! {
            ready = socket.readable() => ready,
            Some(_) = late.join_next() => continue,
        };
        if ready.is_err() || take_burst(&socket, &desk, &mut late).is_err() {
            sleep(PAUSE).await;
        }
        tokio::task::yield_now().await;
    }
}

/// Takes what is there, up to a bound. What our networks know is answered at once.
fn take_burst(socket: &Arc<UdpSocket>, desk: &Arc<Desk>, late: &mut JoinSet<()>) -> io::Result<()> {
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
        while late.try_join_next().is_some() {}
        let (message, room) = match Asked::read(&buffer[..length]) {
            Err(Unanswerable::Silent) => continue,
            Err(Unanswerable::Refused(message)) => (message, UDP_MIN),
            Ok(asked) => match desk.step(&asked) {
                Step::Reply(message) => (message, asked.room()),
                // Dropped: the client asks again, when there may be room.
                Step::Forward(_) | Step::Wait if late.len() >= IN_FLIGHT_MAX => continue,
                Step::Forward(_) | Step::Wait => {
                    late.spawn(reply_late(socket.clone(), desk.clone(), asked, client));
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

async fn reply_late(socket: Arc<UdpSocket>, desk: Arc<Desk>, asked: Asked, client: SocketAddr) {
    let message = desk.reply(&asked).await;
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
        let query = timeout(IDLE, read_framed(&mut stream, QUERY_MAX)).await??;
        let message = match Asked::read(&query) {
            Err(Unanswerable::Silent) => return Ok(()),
            Err(Unanswerable::Refused(message)) => *message,
            Ok(asked) => desk.reply(&asked).await,
        };
        let Some(bytes) = fitted(message, TCP_MAX) else { return Ok(()) };
        timeout(IDLE, write_framed(&mut stream, &bytes)).await??;
    }
}
