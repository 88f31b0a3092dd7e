//! Waiting for a condition, with a deadline and a reason.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(50);

/// Raises a flag when it goes, be it by a panic: whoever works until then ends, and is waited for in vain by nobody.
#[derive(Debug)]
pub struct Raise<'a>(pub &'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits until `condition` gives something, and gives it.
///
/// # Panics
/// When it does not within `seconds`.
#[track_caller]
pub fn until_some<T>(seconds: u64, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "waited {seconds} s in vain for {what}");
        thread::sleep(PAUSE);
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within `seconds`.
#[track_caller]
pub fn until(seconds: u64, what: &str, mut condition: impl FnMut() -> bool) {
    until_some(seconds, what, || condition().then_some(()));
}

/// Waits until `found` gives what was expected, and says what it gave instead.
///
/// # Panics
/// When it does not within `seconds`.
#[track_caller]
pub fn until_equal<T: PartialEq + std::fmt::Debug>(
    seconds: u64,
    what: &str,
    expected: &T,
    mut found: impl FnMut() -> T,
) {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        let last = found();
        if last == *expected {
            return;
        }
        assert!(
            Instant::now() < end,
            "waited {seconds} s in vain for {what}: expected {expected:?}, found {last:?}"
        );
        thread::sleep(PAUSE);
    }
}

/// Looks at `found` for `seconds`: it must stay what was expected all the while.
///
/// # Panics
/// When it is something else.
#[track_caller]
pub fn stays<T: PartialEq + std::fmt::Debug>(
    seconds: u64,
    what: &str,
    expected: &T,
    mut found: impl FnMut() -> T,
) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        assert_eq!(found(), *expected, "{what}");
        thread::sleep(PAUSE);
    }
}
