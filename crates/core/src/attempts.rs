//! Decides how soon something that fails is tried again, and from when on it counts as broken.
//! In: failures in a row. Out: a pause.
//! Not here: what failed, and what happens elsewhere meanwhile (`clustering`).
//! Tested by: below, and every run of the simulator.

use core::time::Duration;

/// Failures in a row after which a node is given up for a while.
pub const FAILURES_MAX: u32 = 5;

/// A copy that ran this long ended the row of failures before it.
pub const RAN_WELL_AFTER: Duration = Duration::from_secs(10);

/// The longest pause before it is started again.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// How long to wait before the next start, after so many failures in a row: at once after the
/// first, since most crashes do not repeat.
pub fn retry_after(failures: u32) -> Duration {
    if failures < 2 {
        return Duration::ZERO;
    }
    Duration::from_millis(200 << (failures - 2).min(8)).min(RETRY_AFTER_MAX)
}
