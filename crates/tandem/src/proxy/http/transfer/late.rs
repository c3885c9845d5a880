//! Tells who kept a request waiting for too long: its client, its endpoint, or neither.
//! Not here: what comes of it (`exchange.rs`).
//! Tested by: `tests/faults.rs`, `tests/limits.rs`.

use super::{End, State, Terms, Transfer};
use crate::proxy::http::wire::request;
use std::task::{Context, Poll, ready};
use std::time::Duration;

impl Transfer<'_> {
    pub(super) fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let waits = self.state == State::Head && (self.is_sent() || self.awaits_leave());
        let Terms { config, idle_timeout, total, .. } = self.terms;
        let idle =
            if waits { self.sent_at + config.answer_timeout } else { self.moved_at + idle_timeout };
        let total = total.filter(|total| *total < idle);
        ready!(self.client.timer.poll(total.unwrap_or(idle), cx));
        if self.is_held_up() {
            return Poll::Ready(End::Left);
        }
        let has_all = self.has_taken_all() && !self.is_deaf;
        if !waits && self.state == State::Head && has_all {
            return Poll::Ready(End::Refused(request::Refusal::TooSlow));
        }
        let had_most = waits && self.waited() * 2 >= config.total_timeout.unwrap_or_default();
        Poll::Ready(if total.is_none() || had_most { End::Late } else { End::Overdue })
    }

    /// The endpoint has all that has come, which is not the whole request, and owes nothing yet;
    /// for as long as a door itself would wait for a head.
    pub(in crate::proxy::http) fn has_waited_for_client(&self) -> bool {
        let is_owed = self.has_taken_all() && !self.body.is_done() && !self.awaits_leave();
        is_owed && self.waited() >= self.terms.config.head_timeout
    }

    /// The client sends its body once the endpoint says so.
    fn awaits_leave(&self) -> bool {
        let may_be_waited_for = self.terms.order.expects && self.interim == 0;
        may_be_waited_for && !self.took_body && self.has_taken_all() && !self.is_deaf
    }

    /// How long the endpoint has had the request.
    pub(in crate::proxy::http) fn waited(&self) -> Duration {
        self.sent_at.elapsed()
    }
}
