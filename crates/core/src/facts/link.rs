//! Decides how a node sees a peer: heard, refused, silent, or never heard.
//! In: when each last was so. Out: `Link`, in the node's facts.
//! Keeps: INV-8, ages travel as durations.
//! Tested by: below.

use core::time::Duration;
use serde::{Deserialize, Serialize};

/// How a node sees a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Link {
    /// Heard from it this long ago.
    Up(Duration),
    /// The connection was reset or closed and a new one was refused at once: its daemon is gone.
    Refused(Duration),
    /// Nothing heard for this long, and no answer either way.
    Silent(Duration),
    /// Not heard from in all the time that this run of the daemon has known of it.
    Never(Duration),
}

impl Link {
    /// What is known of a peer: refused so long ago, heard so long ago or, if never, known for so
    /// long; by how often it should be heard: later than three heartbeats is silence so far.
    pub fn new(
        refused: Option<Duration>,
        heard: Result<Duration, Duration>,
        heartbeat: Duration,
    ) -> Self {
        match (refused, heard) {
            (Some(ago), _) => Self::Refused(ago),
            (None, Err(known)) => Self::Never(known),
            (None, Ok(ago)) if ago <= heartbeat.saturating_mul(3) => Self::Up(ago),
            (None, Ok(ago)) => Self::Silent(ago),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_measured_in_heartbeats() {
        let ms = Duration::from_millis;
        let link = |heard, heartbeat| Link::new(None, Ok(ms(heard)), ms(heartbeat));
        assert_eq!(link(300, 100), Link::Up(ms(300)));
        assert_eq!(link(301, 100), Link::Silent(ms(301)));
        assert_eq!(link(4_000, 2_000), Link::Up(ms(4_000)), "slow heartbeats are not silence");
        assert_eq!(Link::new(None, Err(ms(7)), ms(100)), Link::Never(ms(7)));
        assert_eq!(Link::new(Some(ms(5)), Ok(ms(1)), ms(100)), Link::Refused(ms(5)));
    }
}
