//! One request to another member, and its reply, on a stream of their own.

use anyhow::{Context, Result};
use covey_gossip_quic::{RecvStream, SendStream, read_frame, write_frame};
use serde::{Serialize, de::DeserializeOwned};

use crate::protocol::MESSAGE_MAX;

/// Sends the request on a stream that is open, and waits for the reply.
///
/// # Errors
/// The connection was lost, or the reply is none of this kind.
pub async fn exchange<T: DeserializeOwned>(
    (mut send, mut recv): (SendStream, RecvStream),
    request: &impl Serialize,
) -> Result<T> {
    write_frame(&mut send, &covey_wire::encode(request)?).await?;
    send.finish()?;
    let reply = read_frame(&mut recv, MESSAGE_MAX).await.context("no answer")?;
    Ok(covey_wire::decode::<_, MESSAGE_MAX>(&reply)?)
}
