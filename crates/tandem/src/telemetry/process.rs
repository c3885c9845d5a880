//! Talks to the system about this process: what it holds and what it used.
//! In: nothing. Out: numbers for metrics; none where the system does not say.
//! Tested by: below.

use rustix::time::{ClockId, clock_gettime};
use std::fs;

/// Bytes of memory that are resident.
pub fn resident_bytes() -> Option<u64> {
    resident(&fs::read_to_string("/proc/self/status").ok()?)
}

/// Seconds of processor time used so far, user and system.
pub fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_used_time() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 100_000));
        assert!(cpu_seconds() > 0.0);
    }

    #[test]
    fn what_is_not_said_is_not_known() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t   2048 kB\n"), Some(2048 * 1024));
        assert_eq!(resident("Name:\tx\n"), None);
    }
}
