//! Keeps what openraft records of its batches: nothing, for nobody can read it.
//! In: a size per batch. Out: statistics of no samples. Openraft shows them only with its feature
//! `runtime-stats`, which Tandem leaves off; but the crate of this name on the registry fills
//! 26 MB with lookup tables at the first record, in every node (docs/adr/0009). The names are
//! openraft's.
//! Not here: the figures of Tandem itself (`telemetry`).
//! Tested by: the build.

use std::fmt;
use std::marker::PhantomData;

/// A histogram without samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    data: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self { data: PhantomData }
    }

    /// Drops a value.
    pub const fn record(&mut self, _value: u64) {}

    /// Drops a value that came `_count` times.
    pub const fn record_n(&mut self, _value: u64, _count: u64) {}

    /// Those of no samples.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats::default()
    }
}

/// How the values are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many there are.
    pub samples: u64,
    /// A thousandth is at most this.
    pub p0_1: u64,
    /// A hundredth is at most this.
    pub p1: u64,
    /// A twentieth is at most this.
    pub p5: u64,
    /// A tenth is at most this.
    pub p10: u64,
    /// Half are at most this.
    pub p50: u64,
    /// Nine in ten are at most this.
    pub p90: u64,
    /// All but a hundredth are at most this.
    pub p99: u64,
    /// All but a thousandth are at most this.
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[samples: {}]", self.samples)
    }
}

/// A chart of histograms, with nothing to draw.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsciiChart;

impl AsciiChart {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// Drops a series.
    #[must_use]
    pub fn add<T>(self, _name: &str, _histogram: Histogram<T>) -> Self {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no samples are kept")
    }
}
