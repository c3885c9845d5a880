//! Reads CLOCK_BOOTTIME, which counts through a suspend and is never set back (H4).
//! Handles: H45, the time of day is for people, so one that is wrong changes no decision.

use rustix::time::{ClockId, clock_gettime};
use std::time::{SystemTime, UNIX_EPOCH};
use tandem_core::time::Timestamp;

/// Now, on this machine's own clock.
pub fn now() -> Timestamp {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Timestamp(seconds * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1000)
}

/// Milliseconds since 1970, for people and records only: never for a decision about safety.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add_signed(offset_ms())
}

/// How wrong the clock shall be, for tests with real processes. Not in a release.
#[cfg(debug_assertions)]
fn offset_ms() -> i64 {
    static OFFSET_MS: std::sync::OnceLock<i64> = std::sync::OnceLock::new();
    let read = || std::env::var("TANDEM_TEST_CLOCK_OFFSET_MS").ok()?.parse().ok();
    *OFFSET_MS.get_or_init(|| read().unwrap_or(0))
}

#[cfg(not(debug_assertions))]
const fn offset_ms() -> i64 {
    0
}
