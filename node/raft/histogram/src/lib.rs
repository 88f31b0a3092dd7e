//! A histogram that keeps nothing: what the consensus library needs to compile, without 27 MB of tables.

use std::{fmt, marker::PhantomData};

/// Takes values and forgets them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram<T = ()>(PhantomData<T>);

impl<T> Histogram<T> {
    /// An empty histogram.
    pub const fn new() -> Self {
        Self(PhantomData)
    }

    /// Forgets a value.
    pub const fn record(&mut self, _: u64) {}

    /// Forgets a value that occurred several times.
    pub const fn record_n(&mut self, _: u64, _: u64) {}

    /// The statistics of no values.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats::default()
    }
}

/// Statistics, all of them zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many values there were.
    pub samples: u64,
    /// The median.
    pub p50: u64,
    /// Of ten values nine are at most this.
    pub p90: u64,
    /// Of a hundred values 99 are at most this.
    pub p99: u64,
    /// Of a thousand values 999 are at most this.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("none")
    }
}

/// A chart without anything on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsciiChart;

impl AsciiChart {
    /// An empty chart.
    pub const fn new() -> Self {
        Self
    }

    /// Leaves the chart empty.
    #[expect(clippy::should_implement_trait, reason = "the name is given")]
    pub fn add(self, _: &str, _: Histogram) -> Self {
        self
    }
}
