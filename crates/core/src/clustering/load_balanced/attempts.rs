//! Decides where else a request that failed may go, when, and when its failure is the answer.
//! In: what became of each attempt, and whether the budget pays for another. Out: `Next`, and which
//! endpoints may be asked.
//! States of an endpoint for one request: fresh → (nothing was sent) refused → (a new round) fresh;
//! fresh → (sent, and it broke) has it, to the end.
//! What carried nothing may be tried elsewhere as often as one likes; only its pace has a bound, so
//! that a group that refuses is not flooded. What was sent may have been done: to none twice, and
//! to `SENDS_MAX` in all, or one request that breaks endpoints would go round and break them all.
//! What was at a copy that is proven gone comes all at once to those who took over from it: where
//! the budget does not pay for it, it waits as well, and is not lost.
//! Keeps: H43 nothing is sent again to an endpoint that may have done it; nobody who refused is
//! asked again before everybody else who serves was.
//! Not here: who is chosen (`balance.rs`), whether a request may be repeated and the budget
//! (`retry.rs`, and the shell, which knows what was sent).
//! Tested by: below, and `sim/tests/endpoints`.

use alloc::vec::Vec;
use core::time::Duration;

/// A request is sent at most so often: the first time, and two that have a chance. What breaks
/// three endpoints would break a fourth.
const SENDS_MAX: u32 = 3;
/// What is not paid for waits for so long.
pub const PACE: Duration = Duration::from_millis(100);

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing was sent: there was no connection.
    Refused,
    /// It was sent, and the endpoint says that it did nothing with it.
    Declined,
    /// A connection that had been idle was closed: hardly anybody saw what was sent. Or the
    /// endpoint says that it takes no more on it.
    Stale,
    /// It was sent, and the endpoint says that it is somebody else's and that it did nothing.
    Misdirected,
    /// It was sent, and there was no answer.
    Broke,
    /// It was sent, and whoever had it is proven gone. What is at its place by now is another.
    Gone,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another attempt, now.
    AtOnce,
    /// Another attempt, after `PACE`.
    Paced,
    /// None: it failed.
    Over,
}

/// The attempts of one request or connection. It allocates nothing before one has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempts<E> {
    /// Asked in this round.
    refused: Vec<E>,
    /// Whoever may have done it.
    have_it: Vec<E>,
    sends: u32,
    is_first_round: bool,
}

impl<E> Default for Attempts<E> {
    fn default() -> Self {
        Self { refused: Vec::new(), have_it: Vec::new(), sends: 0, is_first_round: true }
    }
}

impl<E: PartialEq> Attempts<E> {
    /// Whether an endpoint may be asked now.
    pub fn may_ask(&self, endpoint: &E) -> bool {
        !self.refused.contains(endpoint) && !self.have_it.contains(endpoint)
    }

    /// Takes note of a failure; `pay` is asked whether there may be another attempt now, if there
    /// may be one at all.
    pub fn failed(&mut self, endpoint: E, how: Failure, pay: impl FnOnce() -> bool) -> Next {
        let unpaid = match how {
            Failure::Refused => {
                self.refused.push(endpoint);
                return if pay() { Next::AtOnce } else { Next::Paced };
            }
            // Whose it is may be the same endpoint's, which has not heard of it yet.
            Failure::Misdirected => return if pay() { Next::AtOnce } else { Next::Paced },
            Failure::Declined => {
                self.refused.push(endpoint);
                Next::Over
            }
            Failure::Broke => {
                self.have_it.push(endpoint);
                Next::Over
            }
            Failure::Stale => Next::Over,
            Failure::Gone => Next::Paced,
        };
        self.sends += 1;
        match self.sends < SENDS_MAX {
            true if pay() => Next::AtOnce,
            true => unpaid,
            false => Next::Over,
        }
    }

    /// Not asked in this round: nothing pays for it.
    pub fn pass_over(&mut self, endpoint: E) {
        self.refused.push(endpoint);
    }

    /// Whether nobody who refused was asked again. It costs a group no more than one attempt for
    /// each endpoint; what comes after that has to be paid for, or those who are held would be the
    /// load that keeps it from coming back.
    pub const fn is_first_round(&self) -> bool {
        self.is_first_round
    }

    /// Nobody who serves may be asked: whoever refused may be, in another round.
    pub fn next_round(&mut self) -> Next {
        let next = if self.refused.is_empty() { Next::Over } else { Next::Paced };
        self.refused.clear();
        self.is_first_round = false;
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_refused_is_asked_again_only_in_another_round() {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.failed('a', Failure::Refused, || true), Next::AtOnce);
        assert_eq!(attempts.failed('b', Failure::Refused, || false), Next::Paced, "at a slow pace");
        assert!(!attempts.may_ask(&'a') && !attempts.may_ask(&'b') && attempts.may_ask(&'c'));
        assert!(attempts.is_first_round());
        assert_eq!(attempts.next_round(), Next::Paced);
        assert!(attempts.may_ask(&'a') && attempts.may_ask(&'b') && !attempts.is_first_round());
        attempts.pass_over('a');
        assert!(!attempts.may_ask(&'a') && attempts.may_ask(&'b'));
        assert_eq!(
            attempts.next_round(),
            Next::Paced,
            "it is asked in the next one, if that is paid"
        );
        assert!(attempts.may_ask(&'a'));
    }

    #[test]
    fn nobody_gets_a_request_twice_and_three_are_the_most() {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.failed('a', Failure::Broke, || true), Next::AtOnce);
        assert_eq!(attempts.next_round(), Next::Over, "everybody has it");
        assert_eq!(attempts.failed('b', Failure::Refused, || true), Next::AtOnce);
        assert_eq!(attempts.next_round(), Next::Paced);
        assert!(!attempts.may_ask(&'a') && attempts.may_ask(&'b'), "it had it, it did not");
        assert_eq!(attempts.failed('b', Failure::Broke, || true), Next::AtOnce);
        let nobody_pays = || panic!("what may not be is not paid for");
        assert_eq!(attempts.failed('c', Failure::Broke, nobody_pays), Next::Over);
    }

    #[test]
    fn what_was_declined_goes_to_others_first_and_so_often() {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.failed('a', Failure::Declined, || true), Next::AtOnce);
        assert!(!attempts.may_ask(&'a'));
        assert_eq!(attempts.failed('b', Failure::Declined, || true), Next::AtOnce);
        assert_eq!(attempts.next_round(), Next::Paced);
        assert!(attempts.may_ask(&'a'), "it did nothing with it");
        assert_eq!(attempts.failed('a', Failure::Declined, || true), Next::Over);
    }

    #[test]
    fn what_is_somebody_elses_may_be_asked_for_again_wherever_and_whenever_it_is() {
        let mut attempts = Attempts::default();
        for _ in 0..9 {
            assert_eq!(attempts.failed('a', Failure::Misdirected, || true), Next::AtOnce);
        }
        assert_eq!(attempts.failed('a', Failure::Misdirected, || false), Next::Paced);
        assert!(attempts.may_ask(&'a'));
        assert_eq!(attempts.failed('a', Failure::Broke, || false), Next::Over, "that is another");
    }

    #[test]
    fn what_somebody_had_who_is_gone_goes_on_though_nobody_pays_and_so_often() {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.failed('a', Failure::Gone, || true), Next::AtOnce);
        assert!(attempts.may_ask(&'a'), "another is there by now");
        assert_eq!(attempts.failed('a', Failure::Gone, || false), Next::Paced);
        let nobody_pays = || panic!("what may not be is not paid for");
        assert_eq!(attempts.failed('b', Failure::Gone, nobody_pays), Next::Over);
    }

    #[test]
    fn an_idle_connection_that_was_closed_is_a_send_and_no_fault() {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.failed('a', Failure::Stale, || true), Next::AtOnce);
        assert!(attempts.may_ask(&'a'));
        assert_eq!(attempts.failed('a', Failure::Stale, || false), Next::Over);
        assert_eq!(attempts.failed('a', Failure::Stale, || true), Next::Over);
    }
}
