//! Decides since when a copy may lack what its primary wrote: how far that had come, and when.
//! In: what instances say of themselves. Out: the furthest end that was told, and until when a copy
//! that has come so far lacked nothing.
//! States: none; each node keeps its own of every primary, and loses it with its daemon.
//! Keeps: H1, INV-8 all moments are the primary's own, of one run of its daemon: two of them give a
//! duration however late each of them was heard, and are compared with no other clock.
//! Not here: what follows for an election (`loss.rs`).
//! Tested by: the tests below, the scenarios `async_*.txt`, the simulator's mutation of the bound.

use crate::facts::{InstanceFacts, Position, Process, ToldEnd};
use crate::ids::NodeId;
use crate::time::Timestamp;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// So many moments per primary. With ten heard a second they reach back for days, each gap between
/// two of them a fraction of its age.
const MOMENTS_MAX: usize = 64;

/// How far one primary had come, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    furthest: Option<ToldEnd>,
    /// Of the present run, oldest first; both positions and moments rise.
    moments: Vec<Moment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moment {
    end: Position,
    /// The last time at which that was its end.
    at: Timestamp,
}

impl Trail {
    /// It said that it had come this far.
    pub fn note(&mut self, told: ToldEnd) {
        let ToldEnd { position: end, run, at } = told;
        if self.furthest.is_some_and(|known| known.run != run) {
            // How long ago another run's moments were is not known from then on.
            self.moments.clear();
        }
        // Nothing that was told is taken back by a copy that lost it.
        if self.furthest.is_some_and(|known| end < known.position) {
            return;
        }
        match self.moments.last_mut() {
            Some(last) if at < last.at => return,
            Some(last) if end == last.end => last.at = at,
            Some(_) | None => self.moments.push(Moment { end, at }),
        }
        self.furthest = Some(told);
        if self.moments.len() > MOMENTS_MAX {
            self.thin(at);
        }
    }

    /// It held this much, and wrote nothing then: a vote, a promotion, the end of its log.
    fn hold(&mut self, told: ToldEnd) {
        if self.furthest.is_some_and(|known| told.position <= known.position) {
            return;
        }
        if self.furthest.is_some_and(|known| known.run != told.run) {
            self.moments.clear();
        }
        self.furthest = Some(told);
    }

    /// Forgets the moment without which the least is known: whose gap is the smallest part of its
    /// age. A copy that had just reached it then counts as older than it is, never as younger.
    fn thin(&mut self, now: Timestamp) {
        let gap = |i: usize| {
            let (before, after) = (self.moments[i - 1].at, self.moments[i + 1].at);
            let age = now.since(self.moments[i].at).as_micros().max(1);
            after.since(before).as_micros() * 1000 / age
        };
        if let Some(least) = (1..self.moments.len() - 1).min_by_key(|i| gap(*i)) {
            self.moments.remove(least);
        }
    }

    /// The furthest that it said, and when that last was so.
    pub const fn end(&self) -> Option<ToldEnd> {
        self.furthest
    }

    /// Until when a copy that has come to `position` lacked nothing of what was told in this run;
    /// none if it lacked something all the time.
    pub fn whole_until(&self, position: Position) -> Option<Timestamp> {
        self.moments.iter().rev().find(|moment| moment.end <= position).map(|moment| moment.at)
    }
}

/// The trail of each node that was heard as primary of one service, or on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trails(BTreeMap<NodeId, Trail>);

impl Trails {
    /// Nobody was heard.
    pub const fn none() -> Self {
        Self(BTreeMap::new())
    }

    /// A node said this of its instance, in this run of its daemon.
    pub fn note(&mut self, node: &NodeId, run: u64, own: &InstanceFacts) {
        let told = |position| ToldEnd { position, run, at: own.flushed_at };
        let position = Position { data_term: own.data_term, flushed: own.flushed };
        if own.process == Process::Primary && own.system.is_some() {
            self.0.entry(node.clone()).or_default().note(told(position));
        } else if let Some(position) = held(own, position) {
            self.0.entry(node.clone()).or_default().hold(told(position));
        }
    }

    /// The trail of one node, if it ever wrote, voted, or ended cleanly as a primary.
    pub fn of(&self, node: &NodeId) -> Option<&Trail> {
        self.0.get(node)
    }

    /// What this node tells the others of it.
    pub fn ends(&self) -> BTreeMap<NodeId, ToldEnd> {
        let end = |(node, trail): (&NodeId, &Trail)| Some((node.clone(), trail.end()?));
        self.0.iter().filter_map(end).collect()
    }

    /// Only these nodes are left.
    pub fn retain(&mut self, keep: &dyn Fn(&NodeId) -> bool) {
        self.0.retain(|node, _| keep(node));
    }
}

/// What is lost with a primary that has not written anything yet, or no more. Of a server that
/// ended uncleanly the files name a checkpoint, which is no end. What a standby received may end in
/// half a record.
fn held(own: &InstanceFacts, position: Position) -> Option<Position> {
    own.system?;
    let ended = own.process == Process::Stopped && own.stopped_cleanly;
    let is_its_own = own.process == Process::Promoting || ended && own.was_primary;
    own.ballot.and_then(|ballot| ballot.position).or_else(|| is_its_own.then_some(position))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Term;
    use crate::lsn::Lsn;
    use core::time::Duration;

    fn at(flushed: u64) -> Position {
        Position { data_term: Term(1), flushed: Lsn(flushed) }
    }

    const fn ms(ms: u64) -> Timestamp {
        Timestamp(ms * 1000)
    }

    fn told(flushed: u64, now: u64) -> ToldEnd {
        ToldEnd { position: at(flushed), run: 7, at: ms(now) }
    }

    #[test]
    fn a_copy_is_whole_until_the_primary_moves_on() {
        let mut trail = Trail::default();
        for (flushed, now) in [(100, 0), (100, 5000), (120, 5100), (130, 5200)] {
            trail.note(told(flushed, now));
        }
        assert_eq!(trail.whole_until(at(100)), Some(ms(5000)), "an idle primary ages nobody");
        assert_eq!(trail.whole_until(at(125)), Some(ms(5100)));
        assert_eq!(trail.whole_until(at(99)), None, "since when is not known");
        assert_eq!(trail.end(), Some(told(130, 5200)));
    }

    #[test]
    fn what_was_told_is_not_taken_back() {
        let mut trail = Trail::default();
        for (flushed, now) in [(100, 0), (90, 100), (110, 50), (115, 20)] {
            trail.note(told(flushed, now));
        }
        assert_eq!(trail.end(), Some(told(110, 50)));
        let newer = Position { data_term: Term(2), flushed: Lsn(95) };
        trail.note(ToldEnd { position: newer, ..told(0, 200) });
        assert_eq!(trail.end().map(|end| end.position), Some(newer), "a later term begins before");
    }

    #[test]
    fn moments_of_another_run_are_not_compared() {
        let mut trail = Trail::default();
        trail.note(told(100, 5000));
        trail.note(ToldEnd { run: 8, ..told(90, 10) });
        assert_eq!(trail.whole_until(at(200)), None);
        assert_eq!(trail.end(), Some(told(100, 5000)), "how far it had come stays known");
        trail.note(ToldEnd { run: 8, ..told(110, 20) });
        assert_eq!(trail.whole_until(at(110)), Some(ms(20)));
    }

    #[test]
    fn a_long_trail_overstates_an_age_by_a_part_of_it_and_understates_none() {
        let mut trail = Trail::default();
        let beats = 100_000;
        for beat in 0..=beats {
            trail.note(told(beat, beat * 100));
        }
        assert!(trail.moments.len() <= MOMENTS_MAX);
        for age in [0, 1, 3, 10, 100, 1000, 10_000, 99_999] {
            let until = trail.whole_until(at(beats - age)).unwrap_or(Timestamp(0));
            let (told, real) = (ms(beats * 100).since(until), Duration::from_millis(age * 100));
            let most = Duration::from_millis(300) + real * 3 / 2;
            assert!(told >= real && told <= most, "{real:?} became {told:?}");
        }
    }

    #[test]
    fn what_a_winner_held_is_known_though_its_next_daemon_says_less() {
        let mut trails = Trails::default();
        let mut own = InstanceFacts { system: Some(crate::ids::SystemId(1)), ..Default::default() };
        own.ballot =
            Some(crate::facts::Ballot { term: Term(2), position: Some(at(89)), held: None });
        trails.note(&"a".into(), 7, &own);
        (own.ballot, own.process, own.flushed) = (None, Process::Promoting, Lsn(90));
        (own.data_term, own.was_primary) = (Term(1), true);
        trails.note(&"a".into(), 7, &own);
        (own.process, own.flushed) = (Process::Stopped, Lsn(64));
        trails.note(&"a".into(), 8, &own);
        assert_eq!(trails.ends()[&"a".into()].position, at(90));
        let trail = trails.of(&"a".into()).unwrap();
        assert_eq!(trail.whole_until(at(64)), None, "it was never heard to write");
    }

    #[test]
    fn a_standby_that_did_not_vote_leaves_no_trail() {
        let mut trails = Trails::default();
        let mut own = InstanceFacts { system: Some(crate::ids::SystemId(1)), ..Default::default() };
        trails.note(&"a".into(), 7, &own);
        assert!(trails.of(&"a".into()).is_none());
        (own.process, own.flushed_at) = (Process::Primary, ms(70));
        trails.note(&"a".into(), 7, &own);
        assert_eq!((trails.ends()[&"a".into()].run, trails.ends()[&"a".into()].at), (7, ms(70)));
        trails.retain(&|_| false);
        assert_eq!(trails, Trails::default());
    }
}
