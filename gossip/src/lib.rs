//! Who is alive, and the rows that each node says about itself.
//!
//! [`Gossip`] is a machine without sockets, clock or threads: messages, timeouts and the caller's wishes go in
//! with the time at which they happen, [`Output`]s come out. It finds out by SWIM which nodes are alive, and
//! spreads signed *rows* (owner, topic, key, payload) from the one node that may write each to the nodes that
//! subscribe to its topic: at once by eager push to a few of them, surely by anti-entropy.
//!
//! ```text
//! handle_*(now, …) ─┐                    ┌─► Datagram · Push · Request    to the network
//!                   ├─► Gossip ── poll_output() ─► Persist                to the disk
//! handle_timeout ───┘      │             └─► Member · Row                 to whoever decides
//!                          └─ poll_timeout(): when to call again
//! ```

mod broadcast;
mod config;
mod digest;
mod error;
mod exchange;
mod hearing;
mod machine;
mod member;
mod message;
mod output;
mod own;
mod owner;
mod retelling;
mod row;
mod rows;
mod swim;
mod table;
mod timer;
mod topic;

pub use config::{
    BATCH_BYTES_MAX, BATCHES_PER_OWNER_MAX, Config, DATAGRAM_BYTES_MAX, KEY_BYTES_MAX, MEMBERS_MAX,
    MESSAGE_BYTES_MAX, PARTNERS_MAX, ROW_BYTES_MAX, ROWS_PER_BATCH_MAX, SEEDS_MAX, SUBSCRIPTIONS_MAX,
    TOPIC_BYTES_MAX,
};
pub use error::{MessageError, RowError};
pub use machine::{Gossip, Myself};
pub use member::{Liveness, Member, MemberEvent};
pub use output::Output;
pub use owner::Rights;
pub use row::{Row, Version};
pub use topic::{NODES, Topic, TopicError};
