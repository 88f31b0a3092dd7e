//! A name or a published port, from anywhere, reaches a healthy backend; and what leaves the containers' address
//! blocks goes out under the host's own address.
//!
//! A [`Program`] says what our nf_tables tables in one network namespace are to hold. Every change of it answers
//! with the steps for the kernel; [`plan`] compares it with all that the kernel has.

mod expression;
mod host;
mod layout;
pub mod mark;
pub mod names;
mod network;
pub mod object;
mod plan;
mod program;
mod service;

pub use expression::{Expression, Rule};
pub use host::{Edge, Host, Member};
pub use layout::{backends_of, question, read_backend};
pub use network::Network;
pub use plan::plan;
pub use program::{Place, Program};
pub use service::{BACKENDS_MAX, Backend, Balance, Frontend, Protocol, Virtual};

use object::{Family, Tables, Value};

/// What is behind a frontend in observed tables.
pub fn observed(tables: &Tables, frontend: &Frontend) -> Option<Virtual> {
    let (balance, slots) = slots(tables, frontend)?;
    Some(Virtual { balance, backends: slots.into_iter().flatten().collect() })
}

/// The slots behind a frontend in observed tables; `None` for one that is empty.
fn slots(tables: &Tables, frontend: &Frontend) -> Option<(Balance, Vec<Option<Backend>>)> {
    let maps = &tables.get(&Family::Inet)?.maps;
    let find = |(map, key): (String, Vec<u8>)| match maps.get(&map)?.elements.get(&key)? {
        Value::Bytes(value) => Some(value.as_slice()),
        _ => None,
    };
    let (balance, map, keys) = backends_of(frontend, find(question(frontend))?)?;
    let read = |key| find((map.clone(), key)).and_then(|value| read_backend(frontend, value));
    Some((balance, keys.into_iter().map(read).collect()))
}
