//! What happens on a connection once it is known whose it is.

use std::{net::SocketAddr, sync::Weak};

use covey_crypto::identity::PeerIdentity;
use quinn::{Connection, ConnectionError};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use crate::{
    event::{Event, Reply},
    frame::{read_frame, write_frame},
    request::{ANSWER_MAX, REQUEST_MAX},
    stream::{RecvStream, SendStream},
    transport::{self, CONNECT_TIMEOUT, Close, REPLY_TIMEOUT, STREAM_TIMEOUT},
};

/// Bytes of the text with which a connection is closed.
const REASON_MAX: usize = 512;

/// Where a connection comes from; IPv4 written as such, though the socket speaks IPv6.
fn address(connection: &Connection) -> SocketAddr {
    let address = connection.remote_address();
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Hands up what a member sends, until its connection ends; says why it did.
pub(crate) async fn member(
    connection: Connection,
    from: PeerIdentity,
    in_use: Weak<()>,
    events: mpsc::Sender<Event>,
) -> ConnectionError {
    // At most as many as the peer may have streams open.
    let mut arriving = JoinSet::new();
    loop {
        tokio::select! {
            datagram = connection.read_datagram() => match datagram {
                Ok(bytes) => {
                    let event = Event::Datagram { from: from.id, address: address(&connection), bytes };
                    if events.try_send(event).is_err() {
                        tracing::debug!(peer = %from.id, "datagram dropped: too many events wait");
                    }
                }
                Err(reason) => return reason,
            },
            stream = connection.accept_bi() => match stream {
                Ok((send, recv)) => {
                    let send = SendStream::new(send, in_use.upgrade());
                    let recv = RecvStream::new(recv, in_use.upgrade());
                    let address = address(&connection);
                    arriving.spawn(announce(from.clone(), address, Some(send), recv, events.clone()));
                }
                Err(reason) => return reason,
            },
            stream = connection.accept_uni() => match stream {
                Ok(recv) => {
                    let recv = RecvStream::new(recv, in_use.upgrade());
                    let address = address(&connection);
                    arriving.spawn(announce(from.clone(), address, None, recv, events.clone()));
                }
                Err(reason) => return reason,
            },
            Some(_) = arriving.join_next() => {}
        }
    }
}

/// Hands up a stream once its kind is known. One that never says is dropped, which resets it.
async fn announce(
    from: PeerIdentity,
    address: SocketAddr,
    send: Option<SendStream>,
    mut recv: RecvStream,
    events: mpsc::Sender<Event>,
) {
    let mut kind = [0];
    if !matches!(timeout(STREAM_TIMEOUT, recv.read_exact(&mut kind)).await, Ok(Ok(()))) {
        return;
    }
    let [kind] = kind;
    let event = match send {
        Some(send) => Event::Stream { from, address, kind, send, recv },
        None => Event::Uni { from, address, kind, recv },
    };
    // Fails only when nobody listens any more; then the streams are reset.
    let _ = events.send(event).await;
}

/// Serves one join (nobody is known) or renew (`from` is known) request, then closes the connection.
pub(crate) async fn request(connection: Connection, from: Option<PeerIdentity>, events: mpsc::Sender<Event>) {
    transport::grant_request(&connection);
    match answer(&connection, from, events).await {
        // The asker closes when it has read the answer.
        Ok(()) => {
            let _ = timeout(CONNECT_TIMEOUT, connection.closed()).await;
        }
        Err(reason) => {
            let end = reason.floor_char_boundary(REASON_MAX);
            connection.close(Close::Refused.code(), &reason.as_bytes()[..end]);
        }
    }
}

async fn answer(
    connection: &Connection,
    from: Option<PeerIdentity>,
    events: mpsc::Sender<Event>,
) -> Result<(), String> {
    let slow = |_| "the request did not come in time".to_owned();
    let broken = |_| "the request could not be read".to_owned();
    let (mut send, mut recv) = timeout(STREAM_TIMEOUT, connection.accept_bi())
        .await
        .map_err(slow)?
        .map_err(|error| error.to_string())?;
    let request =
        timeout(STREAM_TIMEOUT, read_frame(&mut recv, REQUEST_MAX)).await.map_err(slow)?.map_err(broken)?;
    let (reply, decision) = Reply::new();
    let address = address(connection);
    let event = match from {
        Some(from) => Event::Renew { from, address, request, reply },
        None => Event::Join { address, request, reply },
    };
    events.send(event).await.map_err(|_| "this node is shutting down".to_owned())?;
    let answer = tokio::select! {
        decision = timeout(REPLY_TIMEOUT, decision) => decided(decision)?,
        // Whoever has gone away needs no answer.
        _ = connection.closed() => return Ok(()),
    };
    write_frame(&mut send, &answer).await.map_err(|error| error.to_string())?;
    // The stream ends with this; an error would mean that it has ended already.
    let _ = send.finish();
    Ok(())
}

type Decision = Result<Result<Vec<u8>, String>, oneshot::error::RecvError>;

fn decided(decision: Result<Decision, tokio::time::error::Elapsed>) -> Result<Vec<u8>, String> {
    match decision {
        Ok(Ok(Ok(answer))) if answer.len() > ANSWER_MAX => Err("the answer is too long".to_owned()),
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err("this node does not answer such requests".to_owned()),
        Err(_) => Err("this node did not decide in time".to_owned()),
    }
}
