//! Decides what the end of a transfer allows and says: whether its request may be sent again, and
//! whether its endpoint is at fault.
//! In: `End`, what went which way before it. Out: `Over`.
//! Keeps: H43 what may have been done is not done again; what a client brings about is no fault of
//! an endpoint's.
//! Not here: what becomes of it (`exchange.rs`), who is ejected for it (`tandem_core`).
//! Tested by: `tests/faults.rs`, `tests/ends.rs`.

use super::super::h2::Refused;
use super::super::session::Order;
use super::super::transfer::End;
use std::time::Duration;

/// What is known of a transfer that ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Over {
    pub(super) end: End,
    pub(super) status: Option<u16>,
    pub(super) can_reply: bool,
    /// The client takes the end of its connection for the end of the response.
    pub(super) ends_by_close: bool,
    /// Something came from the endpoint.
    pub(super) has_spoken: bool,
    /// Some of the request's body is gone.
    pub(super) took_body: bool,
    /// How long the endpoint had the request.
    pub(super) waited: Duration,
    /// It has not had the whole of it for long, since that has not come from the client.
    pub(super) has_waited_for_client: bool,
    /// A connection that was idle before was closed: that is no fault of its endpoint.
    pub(super) is_stale: bool,
    pub(super) refused: Option<Refused>,
}

impl Over {
    /// Nothing was done, or what was done twice is done once (H43).
    pub(super) fn may_repeat(self, order: Order) -> bool {
        matches!(self.end, End::Broke | End::Cut(_))
            && !self.has_spoken
            && match self.refused {
                Some(_) => !self.took_body,
                None => order.is_repeatable(),
            }
    }

    /// Nobody did anything with the request, and it cannot go elsewhere: some of it is gone.
    pub(super) const fn is_unseen(self) -> bool {
        self.refused.is_some() && self.took_body && !self.has_spoken
    }

    pub(super) const fn is_fault(self) -> bool {
        match self.end {
            End::Cut(_) | End::Overdue | End::Unfit(_) => return false,
            _ if self.has_spoken => return true,
            _ => {}
        }
        match self.refused {
            Some(Refused::NewConnection) => true,
            Some(Refused::Connection | Refused::Request) => false,
            // Whoever waits for a client gives up some time.
            None if self.has_waited_for_client && matches!(self.end, End::Broke) => false,
            None => !self.is_stale,
        }
    }
}
