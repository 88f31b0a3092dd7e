//! What is to be done when: a queue in order of time, which can excuse time that the machine did not have.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Things to do, each at its time; those of one time in the order in which they were added.
pub(crate) struct Timers<T> {
    due: BTreeMap<(Instant, u64), T>,
    added: u64,
    /// Whether time was excused since something was last taken: never twice in a row, or a machine that is
    /// always late would never do anything.
    excused: bool,
}

impl<T> Timers<T> {
    pub const fn new() -> Self {
        Self { due: BTreeMap::new(), added: 0, excused: false }
    }

    pub fn add(&mut self, at: Instant, what: T) {
        self.due.insert((at, self.added), what);
        self.added += 1;
    }

    pub fn next(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the first thing that is due.
    pub fn take(&mut self, now: Instant) -> Option<T> {
        if self.next()? > now {
            return None;
        }
        self.excused = false;
        self.due.pop_first().map(|(_, what)| what)
    }

    /// When the first thing is more than `late_after` overdue, the machine stalled: everything is put off so far
    /// that the messages which waited outside are heard first.
    pub fn excuse(&mut self, now: Instant, late_after: Duration) {
        let Some(late) = self.next().map(|due| now.saturating_duration_since(due)) else { return };
        if late <= late_after || self.excused {
            return;
        }
        let put_off = late + late_after;
        self.due = std::mem::take(&mut self.due)
            .into_iter()
            .map(|((at, n), what)| ((at + put_off, n), what))
            .collect();
        self.excused = true;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[expect(
        clippy::disallowed_methods,
        reason = "time has no zero, and tests need one instant to count from"
    )]
    pub fn start() -> Instant {
        Instant::now()
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn things_are_taken_in_order_and_never_early() {
        let start = start();
        let mut timers = Timers::new();
        timers.add(start + 2 * MS, "second");
        timers.add(start + MS, "first");
        timers.add(start + 2 * MS, "third");
        assert_eq!(timers.take(start), None);
        let taken: Vec<_> = std::iter::from_fn(|| timers.take(start + 2 * MS)).collect();
        assert_eq!(taken, ["first", "second", "third"]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_stall_puts_everything_off_once() {
        let start = start();
        let mut timers = Timers::new();
        timers.add(start, "probe");
        timers.add(start + 100 * MS, "verdict");
        timers.excuse(start + 250 * MS, 250 * MS);
        assert_eq!(timers.next(), Some(start), "not late enough");

        let awake = start + 3000 * MS;
        timers.excuse(awake, 250 * MS);
        assert_eq!(timers.next(), Some(awake + 250 * MS));
        let late_again = awake + 3000 * MS;
        timers.excuse(late_again, 250 * MS);
        assert_eq!(timers.take(late_again), Some("probe"), "a machine that is always late still works");
    }
}
