//! Decides what a witness does: it promises, and votes once its vote may count.
//! In: `WitnessView`. Out: `Next`.
//! States: voted → (asked) promised → (the old lease passed) voted.
//! Keeps: INV-1 in `Async` mode its ballot waits until no lease can rest on its last answer, as
//! that of a node with data does; INV-2 what is promised is made durable first.
//! Not here: the file (the shell), the lease (`cluster/lease.rs`).
//! Tested by: below, and the simulator, whose witness runs this.

use crate::facts::Ballot;
use crate::ids::Term;
use crate::time::Timestamp;

/// What a witness knows.
#[derive(Clone, Copy, Debug)]
pub struct WitnessView {
    /// The greatest term that a controller asked it to promise.
    pub asked: Option<Term>,
    /// Durable.
    pub promised: Term,
    /// The ballot that it tells.
    pub ballot: Option<Ballot>,
    /// From when on the ballot of the promised term counts (`lease::outlived`); none is at once.
    pub counts_from: Option<Timestamp>,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Make the term durable, then tell it, then look from when on its ballot counts.
    Promise {
        /// The term.
        term: Term,
    },
    /// Tell the ballot.
    Vote(Ballot),
    /// Look again then, or when something changes.
    Wait(Option<Timestamp>),
}

/// Plans for a witness.
pub fn plan(view: &WitnessView, now: Timestamp) -> Next {
    if let Some(term) = view.asked.filter(|term| *term > view.promised) {
        return Next::Promise { term };
    }
    let term = view.promised;
    let is_told = view.ballot.is_some_and(|ballot| ballot.term == term);
    if term == Term(0) || is_told {
        return Next::Wait(None);
    }
    match view.counts_from {
        Some(until) if until > now => Next::Wait(Some(until)),
        Some(_) | None => Next::Vote(Ballot { term, position: None, held: None }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::lease::outlived;
    use crate::pairing::{Clustering, Kind, Pairing, Replication};
    use crate::spec::{Durability, ServiceSpec, Timing};
    use core::time::Duration;

    fn spec(durability: Durability) -> ServiceSpec {
        let pairing =
            Pairing::new(Kind::Postgres, Clustering::ActivePassive, Replication::PrimaryReplica)
                .unwrap_or_else(|_| unreachable!());
        ServiceSpec::new(pairing, durability, Timing::default())
    }

    const ASYNC: Durability = Durability::Async { lag_bytes_max: 1, lag_max: Duration::MAX };

    fn view(promised: u64, counts_from: Option<Timestamp>) -> WitnessView {
        WitnessView { asked: None, promised: Term(promised), ballot: None, counts_from }
    }

    #[test]
    fn a_promise_comes_first_and_once() {
        let asked = WitnessView { asked: Some(Term(5)), ..view(4, None) };
        assert_eq!(plan(&asked, Timestamp(0)), Next::Promise { term: Term(5) });
        let again = WitnessView { asked: Some(Term(4)), ..asked };
        let vote = Next::Vote(Ballot { term: Term(4), position: None, held: None });
        assert_eq!(plan(&again, Timestamp(0)), vote, "asked for what it promised already");
        let told = WitnessView {
            ballot: Some(Ballot { term: Term(4), position: None, held: None }),
            ..again
        };
        assert_eq!(plan(&told, Timestamp(0)), Next::Wait(None));
        assert_eq!(plan(&view(0, None), Timestamp(0)), Next::Wait(None), "nothing was promised");
    }

    #[test]
    fn an_async_ballot_waits_until_the_lease_it_took_part_in_has_passed() {
        let timing = Timing::default();
        let (started, answered) = (Timestamp(1_000_000), Timestamp(9_000_000));
        let until = answered.plus(timing.lease).plus(timing.drift_margin);
        let counts_from = outlived(&spec(ASYNC), Some(answered), started);
        assert_eq!(counts_from, Some(until));
        let before = until.minus(Duration::from_micros(1));
        assert_eq!(plan(&view(4, counts_from), before), Next::Wait(Some(until)));
        let vote = Next::Vote(Ballot { term: Term(4), position: None, held: None });
        assert_eq!(plan(&view(4, counts_from), until), vote);
        let quorum = outlived(&spec(Durability::Quorum { acks: 1 }), Some(answered), started);
        assert_eq!(plan(&view(4, quorum), answered), vote, "promises fence by themselves");
    }

    #[test]
    fn what_an_earlier_daemon_answered_is_waited_out_after_a_restart() {
        let timing = Timing::default();
        let started = Timestamp(9_000_000);
        let until = started.plus(timing.lease).plus(timing.drift_margin);
        for answered in [None, Some(Timestamp(8_000_000))] {
            assert_eq!(outlived(&spec(ASYNC), answered, started), Some(until));
        }
    }
}
