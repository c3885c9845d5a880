//! Decides from how a connection ended whether its endpoint worked.
//! In: which side ended it first, who had said something until then, how long it had lasted. Out:
//! whether that counts as work.
//! An endpoint that only listens may close what its client has left, or never used; one that was
//! spoken to and closes without a word does no work, and neither does one that closes at once.
//! What a client does says nothing of its endpoint: else whoever connects and goes would eject it.
//! Not here: the bytes (`proxy/balancer/copying.rs`, `proxy/http/tunnel.rs`), what failures lead to
//! (`../ejection.rs`).
//! Tested by: below.

use core::time::Duration;

/// An endpoint that closes sooner, without a word, has refused.
pub const REFUSED_WITHIN: Duration = Duration::from_secs(1);

/// One side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who came.
    Client,
    /// Who serves.
    Endpoint,
}

/// What ended the copying both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// That side will send no more.
    Closed(Side),
    /// That side is gone.
    Broke(Side),
    /// Nothing moved for too long.
    Idle,
}

/// What had happened until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// Something came from the client.
    pub client_spoke: bool,
    /// Something came from the endpoint, whether or not the client took it.
    pub endpoint_spoke: bool,
    /// How long there was a connection.
    pub lasted: Duration,
}

/// Whether the endpoint did something with its connection, or cannot be blamed.
pub fn worked(end: End, past: Past) -> bool {
    match end {
        End::Broke(Side::Endpoint) => past.endpoint_spoke,
        End::Closed(Side::Endpoint) => {
            let is_refusal = past.client_spoke || past.lasted < REFUSED_WITHIN;
            past.endpoint_spoke || !is_refusal
        }
        End::Closed(Side::Client) | End::Broke(Side::Client) | End::Idle => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(client_spoke: bool, endpoint_spoke: bool, seconds: u64) -> Past {
        Past { client_spoke, endpoint_spoke, lasted: Duration::from_secs(seconds) }
    }

    #[test]
    fn what_a_client_does_says_nothing_of_its_endpoint() {
        for end in [End::Closed(Side::Client), End::Broke(Side::Client), End::Idle] {
            for spoke in [true, false] {
                assert!(worked(end, past(spoke, false, 0)), "{end:?}");
            }
        }
    }

    #[test]
    fn an_endpoint_that_says_nothing_is_blamed_unless_nobody_asked_it_anything() {
        let (closed, broke) = (End::Closed(Side::Endpoint), End::Broke(Side::Endpoint));
        for (end, past, wanted) in [
            (closed, past(true, true, 0), true),
            (broke, past(true, true, 0), true),
            (closed, past(false, false, 0), false),
            (closed, past(false, false, 2), true),
            (closed, past(true, false, 2), false),
            (broke, past(false, false, 2), false),
        ] {
            assert_eq!(worked(end, past), wanted, "{end:?} {past:?}");
        }
    }
}
