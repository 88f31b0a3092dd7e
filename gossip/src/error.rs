//! Why a message was dropped, and why a row cannot be written.

use covey_wire::{DecodeError, Id};

use crate::config::{KEY_BYTES_MAX, MESSAGE_BYTES_MAX, ROW_BYTES_MAX, SUBSCRIPTIONS_MAX};

/// A message was dropped; the machine is as it was, or took the part that was sound. Worth a debug line: a peer of
/// another version, a bug, or an attacker who is a member.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The message is longer than its kind may be.
    #[error("message of {0} bytes is over the limit of {MESSAGE_BYTES_MAX}")]
    TooLong(usize),
    /// The bytes do not spell a message.
    #[error("message cannot be read")]
    Malformed(#[from] DecodeError),
    /// The message names another sender than its connection has.
    #[error("{from} sent a message in the name of {claimed}")]
    Impostor {
        /// Who the message says that it comes from.
        claimed: Id,
        /// Whose certificate the connection has.
        from: Id,
    },
    /// SWIM does not understand the packet.
    #[error("membership packet is refused")]
    Swim(#[source] foca::Error),
    /// More members are named than anyone can have.
    #[error("there is no room for more members")]
    Full,
}

/// A row was not written. The rows are as they were.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// The key is empty or too long.
    #[error("a row's key has 1 to {KEY_BYTES_MAX} bytes, not {0}")]
    Key(usize),
    /// The payload is too long.
    #[error("a row's payload has at most {ROW_BYTES_MAX} bytes, not {0}")]
    Payload(usize),
    /// The owner has as many rows in this topic as one may have.
    #[error("there is no room for more rows in this topic")]
    Full,
    /// The node subscribes to as many topics as one may.
    #[error("a node subscribes to at most {SUBSCRIPTIONS_MAX} topics")]
    Subscriptions,
}
