//! Moments on one node's own clock, handed in from outside.

use core::time::Duration;
use serde::{Deserialize, Serialize};

/// Microseconds of one node's CLOCK_BOOTTIME: counts through a suspend, never set back (H4).
/// Two nodes' timestamps cannot be compared.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// How long ago `earlier` was; zero if it is not in the past.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The moment `duration` later.
    #[must_use]
    pub const fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_micros() as u64))
    }

    /// The moment `duration` earlier, not before the clock's start.
    #[must_use]
    pub const fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration.as_micros() as u64))
    }
}

/// A fact and when it was learnt, on the clock of the node that holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed<T> {
    value: T,
    at: Timestamp,
}

impl<T> Observed<T> {
    /// A fact learnt at `at`.
    pub const fn new(value: T, at: Timestamp) -> Self {
        Self { value, at }
    }

    /// The fact, unless it is older than `age_max` (INV-8).
    pub fn fresh(&self, now: Timestamp, age_max: Duration) -> Option<&T> {
        (self.age(now) <= age_max).then_some(&self.value)
    }

    /// The fact whatever its age: for what cannot go back, such as a promise.
    pub const fn last_known(&self) -> &T {
        &self.value
    }

    /// How old the fact is.
    pub const fn age(&self, now: Timestamp) -> Duration {
        now.since(self.at)
    }
}
