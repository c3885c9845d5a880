//! Decides how a copy comes back: follow as it is, rewind, or copy anew.
//! In: the own data and the primary's. Out: a `Rung` of the ladder.
//! Keeps: a copy that went another way is never fed (H6, H22); a standby that was not stopped
//! cleanly is never rewound (H21); rewinding waits for the primary's checkpoint (H18).
//! Not here: when (`instance.rs`), how (the PostgreSQL adapter).

use crate::cluster::state::{Appointed, ServiceState};
use crate::facts::{InstanceFacts, Process};
use crate::ids::TimelineId;
use crate::lsn::Lsn;
use alloc::vec::Vec;

/// How a copy comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// Its log is a prefix of the primary's.
    Follow,
    /// Undo what the primary does not have.
    Rewind,
    /// Copy everything again.
    Clone,
}

/// The lowest rung that can work; each failure since it last streamed takes one rung more.
pub fn rung(own: &InstanceFacts, primary: &InstanceFacts, agreed: &ServiceState) -> Rung {
    if own.system.is_some() && primary.system.is_some() && own.system != primary.system {
        return Rung::Clone;
    }
    if !numbers_mean_the_same(own, primary, agreed) {
        return Rung::Clone;
    }
    let lowest = match is_prefix(own, primary) {
        true => Rung::Follow,
        // pg_rewind takes two timelines of one number for the same one (H6).
        false if own.timeline == primary.timeline => Rung::Clone,
        false => Rung::Rewind,
    };
    if is_fresh(own) {
        // Failures before the copy say nothing about it.
        return if lowest == Rung::Follow { Rung::Follow } else { Rung::Clone };
    }
    let raised = match (lowest, own.rejoin_failures) {
        (rung, 0) => rung,
        (Rung::Follow, 1) if own.timeline != primary.timeline => Rung::Rewind,
        (Rung::Follow, 1) => Rung::Follow,
        (Rung::Follow | Rung::Rewind | Rung::Clone, _) => Rung::Clone,
    };
    let can_rewind = own.was_primary || own.stopped_cleanly || own.process == Process::Standby;
    if raised == Rung::Rewind && !can_rewind { Rung::Clone } else { raised }
}

/// Whether a timeline's number names the same timeline here and on the primary, so that forks can
/// be compared. Two nodes can make timelines of one number that begin at one position, and neither
/// PostgreSQL nor pg_rewind can tell them apart (H6). Known from terms: all of the own data was
/// written by the primary of `origin`, or before; is that primary's timeline in this one's past?
fn numbers_mean_the_same(
    own: &InstanceFacts,
    primary: &InstanceFacts,
    agreed: &ServiceState,
) -> bool {
    let origin = if own.was_primary { own.timeline_term } else { own.followed };
    if was_fed_unasked(own) {
        return false;
    }
    let Some(appointment) = &agreed.appointment else { return false };
    let line = agreed.history.iter().find(|line| line.term == origin);
    // What this primary began since then lies at the end of its past; a number that occurs there
    // and here may name two timelines.
    let since = agreed
        .history
        .iter()
        .filter(|line| line.term > origin && line.primary == appointment.primary)
        .count();
    let past = |facts: &InstanceFacts| -> Vec<TimelineId> {
        facts.forks.iter().map(|fork| fork.timeline).chain([facts.timeline]).collect()
    };
    let (here, there) = (past(own), past(primary));
    let clash = there.iter().rev().take(since).any(|begun| here.contains(begun));
    let by_itself = line.is_some_and(|line| line.primary == appointment.primary);
    // An acknowledged barrier is on every later primary, if every one of them was elected whole.
    let whole = |line: &Appointed| line.term <= origin || line.whole;
    let confirmed = appointment.rules.iter().all(|rule| rule.acks > 0);
    let confirmed = confirmed && agreed.history.iter().all(whole);
    let by_barrier = line.is_some_and(|line| line.active_unix_ms.is_some());
    origin == primary.timeline_term
        || origin == primary.followed && !clash
        || by_itself && primary.followed < origin && !clash
        || by_barrier && confirmed && origin < primary.timeline_term
}

/// The primary that it followed was promoted anew and fed it on, before this node's daemon heard of
/// that (it was away, or cut off from the others): in which term its last data was written is not
/// known (H6). That costs a copy of everything.
fn was_fed_unasked(own: &InstanceFacts) -> bool {
    let known = own.followed_timeline > TimelineId(0);
    !own.was_primary && known && own.timeline > own.followed_timeline
}

/// Just copied, and not started since: where it begins is not known yet.
fn is_fresh(own: &InstanceFacts) -> bool {
    own.flushed == Lsn::ZERO && !own.was_primary
}

/// Whether the own log is a part of the primary's, as far as both sides' histories tell.
fn is_prefix(own: &InstanceFacts, primary: &InstanceFacts) -> bool {
    if is_fresh(own) {
        return own.followed >= primary.timeline_term;
    }
    if !own.forks.iter().all(|fork| primary.forks.contains(fork)) {
        return false;
    }
    if own.timeline == primary.timeline {
        return !own.was_primary && own.followed >= primary.timeline_term;
    }
    // The end of a crashed primary's log is not known before it was recovered.
    let end_known = !own.was_primary || own.stopped_cleanly || own.process == Process::Standby;
    let end_on_primary = primary.forks.iter().find(|fork| fork.timeline == own.timeline);
    end_known && end_on_primary.is_some_and(|fork| own.flushed <= fork.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Fork;
    use crate::ids::{Term, TimelineId};

    fn primary() -> InstanceFacts {
        InstanceFacts {
            timeline: TimelineId(3),
            forks: [(1, 100), (2, 200)]
                .map(|(timeline, end)| Fork { timeline: TimelineId(timeline), end: Lsn(end) })
                .into(),
            ..InstanceFacts::default()
        }
    }

    fn rung_of(own: &InstanceFacts, primary: &InstanceFacts) -> Rung {
        let rules = [].into();
        let phase = crate::cluster::state::Phase::Active;
        let appointment =
            crate::cluster::state::Appointment { term: Term(9), primary: "b".into(), rules, phase };
        let agreed = ServiceState { appointment: Some(appointment), ..ServiceState::default() };
        rung(own, primary, &agreed)
    }

    fn own(timeline: u32, flushed: u64) -> InstanceFacts {
        InstanceFacts {
            timeline: TimelineId(timeline),
            flushed: Lsn(flushed),
            ..InstanceFacts::default()
        }
    }

    #[test]
    fn a_prefix_follows() {
        assert_eq!(rung_of(&own(2, 200), &primary()), Rung::Follow);
        assert_eq!(rung_of(&own(3, 900), &primary()), Rung::Follow);
        let stopped = InstanceFacts { was_primary: true, stopped_cleanly: true, ..own(2, 150) };
        assert_eq!(rung_of(&stopped, &primary()), Rung::Follow);
    }

    #[test]
    fn what_went_another_way_is_undone_or_copied() {
        let crashed = InstanceFacts { was_primary: true, ..own(2, 150) };
        assert_eq!(rung_of(&crashed, &primary()), Rung::Rewind);
        assert_eq!(rung_of(&own(2, 201), &primary()), Rung::Clone, "an unclean standby (H21)");
        let clean = InstanceFacts { stopped_cleanly: true, ..own(2, 201) };
        assert_eq!(rung_of(&clean, &primary()), Rung::Rewind);
        let same_number = InstanceFacts { was_primary: true, ..own(3, 150) };
        assert_eq!(rung_of(&same_number, &primary()), Rung::Clone, "a number is no identity (H6)");
        let fed_by_another = InstanceFacts { followed: Term(4), ..own(3, 150) };
        let primary = InstanceFacts { timeline_term: Term(5), ..primary() };
        assert_eq!(rung_of(&fed_by_another, &primary), Rung::Clone, "the same, as a standby (H6)");
    }

    #[test]
    fn what_was_fed_unasked_is_copied_whatever_its_number() {
        let asked = InstanceFacts { followed_timeline: TimelineId(2), ..own(2, 200) };
        assert_eq!(rung_of(&asked, &primary()), Rung::Follow);
        let unasked = InstanceFacts { followed_timeline: TimelineId(1), ..own(2, 200) };
        assert_eq!(rung_of(&unasked, &primary()), Rung::Clone);
    }

    #[test]
    fn failures_climb() {
        let once = InstanceFacts { stopped_cleanly: true, rejoin_failures: 1, ..own(2, 1) };
        assert_eq!(rung_of(&once, &primary()), Rung::Rewind);
        let twice = InstanceFacts { rejoin_failures: 2, ..once };
        assert_eq!(rung_of(&twice, &primary()), Rung::Clone);
    }
}
