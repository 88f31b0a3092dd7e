//! The clock and the dice of this machine: the only place where the product asks for either.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use covey_state::{Id, time::Stamp};

/// The time of day, as far as this machine knows it.
pub fn now() -> Stamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Stamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// The time of day, as certificates count it.
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// A time that never goes back.
pub fn monotonic() -> Instant {
    Instant::now()
}

/// Waits until `at`; for ever where there is no such time.
pub async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Fresh random bytes, fit for keys.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes);
    bytes
}

/// A fresh id.
pub fn new_id() -> Id {
    Id::new(u128::from_ne_bytes(random()))
}
