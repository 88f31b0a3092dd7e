//! What happens on a connection once it is known whose it is.

use std::{net::SocketAddr, sync::Arc};

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
    stream::{InUse, RecvStream, SendStream, Uses},
    transport::{self, CONNECT_TIMEOUT, Close, END, REPLY_TIMEOUT, STREAM_TIMEOUT},
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
    uses: Arc<Uses>,
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
                    let send = SendStream::new(send, InUse::new(&uses));
                    let recv = RecvStream::new(recv, InUse::new(&uses));
                    let (from, address, events) = (from.clone(), address(&connection), events.clone());
                    arriving.spawn(async move {
                        let mut recv = recv;
                        if let Some(kind) = kind(&mut recv).await {
                            // Fails only when nobody listens any more; then the streams are reset.
                            let _ = events.send(Event::Stream { from, address, kind, send, recv }).await;
                        }
                    });
                }
                Err(reason) => return reason,
            },
            stream = connection.accept_uni() => match stream {
                Ok(recv) => {
                    let recv = RecvStream::new(recv, InUse::new(&uses));
                    let (from, address, events) = (from.clone(), address(&connection), events.clone());
                    let uses = uses.clone();
                    arriving.spawn(async move {
                        let mut recv = recv;
                        match kind(&mut recv).await {
                            Some(END) => uses.set_peer_ends(),
                            Some(kind) => _ = events.send(Event::Uni { from, address, kind, recv }).await,
                            None => {}
                        }
                    });
                }
                Err(reason) => return reason,
            },
            Some(_) = arriving.join_next() => {}
        }
    }
}

/// What a stream is for. One that never says is dropped, which resets it.
async fn kind(recv: &mut RecvStream) -> Option<u8> {
    let mut kind = [0];
    timeout(STREAM_TIMEOUT, recv.read_exact(&mut kind)).await.ok()?.ok()?;
    Some(kind[0])
}

/// Asks the peer to end the connection as soon as nothing is under way on it.
pub(crate) async fn end(connection: Connection) {
    // A peer that cannot be asked is not waited for long.
    if let Ok(mut send) = connection.open_uni().await {
        let _ = send.write_all(&[END]).await;
    }
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
