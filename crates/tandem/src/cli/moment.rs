//! Talks about moments: what a person writes, and what a person reads.
//! In: RFC 3339, or a time from now such as `+5m`. Out: milliseconds since 1970; text in UTC.
//! Tested by: below.

use jiff::{SignedDuration, Timestamp};
use std::str::FromStr;
use std::time::Duration;

/// When something shall happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// At this time, milliseconds since 1970.
    At(u64),
    /// So long from now.
    In(Duration),
}

/// The text names no moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a time as 2026-11-22T03:00:00Z, or a time from now as +5m")]
pub struct InvalidMoment;

impl Moment {
    /// Milliseconds since 1970, with `now` in the same measure.
    pub fn unix_ms(self, now: u64) -> u64 {
        match self {
            Self::At(unix_ms) => unix_ms,
            Self::In(wait) => {
                now.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
            }
        }
    }
}

impl FromStr for Moment {
    type Err = InvalidMoment;

    fn from_str(text: &str) -> Result<Self, InvalidMoment> {
        if let Some(wait) = text.strip_prefix('+') {
            let wait: SignedDuration = wait.trim().parse().map_err(|_| InvalidMoment)?;
            return Duration::try_from(wait).map(Self::In).map_err(|_| InvalidMoment);
        }
        let time: Timestamp = text.parse().map_err(|_| InvalidMoment)?;
        u64::try_from(time.as_millisecond()).map(Self::At).map_err(|_| InvalidMoment)
    }
}

/// The longest delay between two nodes that a cluster on this machine takes.
const DELAY_MAX: Duration = Duration::from_secs(1);

/// How long something takes longer, as `5ms`.
///
/// # Errors
/// The text is no time, or more than a second.
pub fn delay(text: &str) -> Result<Duration, InvalidDelay> {
    let delay: SignedDuration = text.trim().parse().map_err(|_| InvalidDelay)?;
    Duration::try_from(delay).ok().filter(|delay| *delay <= DELAY_MAX).ok_or(InvalidDelay)
}

/// The text names no delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a time of at most one second, as 5ms")]
pub struct InvalidDelay;

/// A moment for people, in UTC: nodes in several time zones are read side by side.
pub fn show(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| format!("{unix_ms} ms"), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_short() {
        assert_eq!(delay("5ms"), Ok(Duration::from_millis(5)));
        for text in ["", "5", "-5ms", "2s"] {
            assert_eq!(delay(text), Err(InvalidDelay), "{text}");
        }
    }

    #[test]
    fn both_forms() {
        let at = |text: &str| text.parse::<Moment>().map(|moment| moment.unix_ms(1_000));
        assert_eq!(at("+5m"), Ok(301_000));
        assert_eq!(at("+1h30m"), Ok(5_401_000));
        assert_eq!(at("1970-01-01T00:00:02Z"), Ok(2_000));
        assert_eq!(at("1970-01-01T01:00:02+01:00"), Ok(2_000));
        for text in ["", "+", "5m", "tomorrow", "+-5m", "2026-11-22", "1969-01-01T00:00:00Z"] {
            assert_eq!(at(text), Err(InvalidMoment), "{text}");
        }
    }

    #[test]
    fn people_read_utc() {
        assert_eq!(show(1_763_836_447_123), "2025-11-22T18:34:07.123Z");
        assert_eq!(show(u64::MAX), format!("{} ms", u64::MAX));
    }
}
