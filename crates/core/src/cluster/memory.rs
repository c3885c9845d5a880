//! Decides since when a node knows what a lease may rest on: its daemon's start, the last change of
//! the voters, the return of a service that was taken out. And by what one that is taken out still
//! holds its lease, so that its copy may end in order.
//! In: what is agreed, each time it is looked at. Out: that moment; whether what was told is of the
//! past; what was agreed last of what is out.
//! States: there → (taken out) leaving → (its name is back, or the voters change) over.
//! Keeps: INV-1, INV-12 a ballot waits for every lease that this node may have supported, however
//! little it saw of what was agreed in between: two changes may be applied at once. INV-13 nothing
//! is supported of a service while anything of its name is there, a seat as well.
//! Not here: how long is waited (`lease.rs`).
//! Tested by: below, and the simulator, whose nodes ask it as well.

use crate::cluster::lease;
use crate::cluster::state::{ClusterState, ServiceState};
use crate::cluster::taken_out::TakenOut;
use crate::ids::{NodeId, ServiceId, Term};
use crate::spec::ServiceSpec;
use crate::time::Timestamp;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;

/// What a node remembers of what was agreed about one service.
#[derive(Clone, Debug)]
pub struct Memory {
    since: Timestamp,
    voters: BTreeSet<NodeId>,
    before: Option<TakenOut>,
    /// What was agreed of it last.
    last: Option<Box<(ServiceSpec, ServiceState)>>,
    /// It is taken out, and nothing of its name is there.
    is_leaving: bool,
}

impl Memory {
    /// Of a daemon that starts now.
    pub const fn new(now: Timestamp) -> Self {
        let voters = BTreeSet::new();
        Self { since: now, voters, before: None, last: None, is_leaving: false }
    }

    /// What was answered before this moment is not known any more, and is waited out.
    pub const fn since(&self) -> Timestamp {
        self.since
    }

    /// Who the voters were when it was last looked at.
    pub const fn voters(&self) -> &BTreeSet<NodeId> {
        &self.voters
    }

    /// Takes over what is agreed. Whether the service came back since: then ballots, and terms that
    /// were asked for, are of the past.
    pub fn learn(&mut self, agreed: &ClusterState, service: &ServiceId, now: Timestamp) -> bool {
        if !self.voters.iter().eq(agreed.spec.nodes.keys()) {
            self.voters = agreed.spec.nodes.keys().cloned().collect();
            self.since = now;
            if !agreed.services.contains_key(service) {
                self.last = None;
            }
        }
        self.note_last(agreed, service);
        let Some(state) = agreed.services.get(service) else { return false };
        let anew = self.before.replace(state.before).is_some_and(|before| before != state.before);
        if anew {
            self.since = now;
        }
        anew
    }

    fn note_last(&mut self, agreed: &ClusterState, service: &ServiceId) {
        let spec = agreed.spec.services.get(service);
        if let Some((spec, state)) = spec.zip(agreed.services.get(service)) {
            self.is_leaving = false;
            let is_known = self.last.as_ref().is_some_and(|last| {
                last.1.revision == state.revision
                    && last.1.before == state.before
                    && last.0 == *spec
            });
            if !is_known {
                self.last = Some(Box::new((spec.clone(), state.clone())));
            }
            return;
        }
        let Some(last) = &self.last else { return };
        let name = last.0.seat.as_ref().map_or(service, |seat| &seat.of);
        let is_of_it = |(id, spec): (&ServiceId, &ServiceSpec)| {
            spec.seat.as_ref().map_or(id, |seat| &seat.of) == name
        };
        self.is_leaving = !agreed.spec.services.iter().any(is_of_it);
        if !self.is_leaving {
            // Whatever is there now may start under a lease of its own.
            self.last = None;
        }
    }

    /// What was agreed last of a service that is taken out, as long as nothing of its name is back:
    /// its holder still proves its lease by that, and its copy may end in order. Whoever starts
    /// something of that name later waits for every such lease, as for any other.
    pub fn leaving(&self) -> Option<(&ServiceSpec, &ServiceState)> {
        let last = self.last.as_deref().filter(|_| self.is_leaving);
        last.map(|(spec, state)| (spec, state))
    }

    /// The term whose lease this node still supports of a service that is taken out.
    pub fn outlives(&self) -> Option<Term> {
        self.leaving().and_then(|(spec, state)| lease::outlives(spec, state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::state::{Appointment, Phase};
    use crate::ids::Revision;
    use crate::pairing::{Clustering, Kind, Pairing, Replication};
    use crate::spec::{Durability, NodeRole, NodeSpec, Seat, Timing};
    use alloc::vec::Vec;
    use core::time::Duration;

    fn agreed(nodes: &[&str]) -> ClusterState {
        let spec = || NodeSpec { role: NodeRole::Data, zone: None, priority: 100, capacity: 1 };
        let mut state = ClusterState::default();
        state.spec.nodes = nodes.iter().map(|node| (NodeId::from(*node), spec())).collect();
        state.services.insert("jobs".into(), Default::default());
        state
    }

    #[test]
    fn a_change_of_the_voters_begins_anew_and_nothing_else_does() {
        let (mut memory, jobs) = (Memory::new(Timestamp(1)), "jobs".into());
        assert!(!memory.learn(&agreed(&["a", "b"]), &jobs, Timestamp(2)));
        assert_eq!(memory.since(), Timestamp(2), "it knew nobody");
        let mut state = agreed(&["a", "b"]);
        state.draining.insert("a".into());
        assert!(!memory.learn(&state, &jobs, Timestamp(3)));
        assert_eq!(memory.since(), Timestamp(2));
        assert!(!memory.learn(&agreed(&["a", "b", "c"]), &jobs, Timestamp(4)));
        assert_eq!((memory.since(), memory.voters().len()), (Timestamp(4), 3));
    }

    #[test]
    fn a_service_that_came_back_is_another_one_even_if_nobody_saw_it_go() {
        let (mut memory, jobs) = (Memory::new(Timestamp(1)), "jobs".into());
        memory.learn(&agreed(&["a"]), &jobs, Timestamp(2));
        let mut state = agreed(&["a"]);
        state.services.clear();
        assert!(!memory.learn(&state, &jobs, Timestamp(3)));
        let mut state = agreed(&["a"]);
        let outlast = Duration::from_secs(1);
        let before = TakenOut { outlast, ..TakenOut::default() };
        state.services.entry("jobs".into()).or_default().before = before;
        assert!(memory.learn(&state, &jobs, Timestamp(4)));
        assert_eq!(memory.since(), Timestamp(4));
        assert!(!memory.learn(&state, &jobs, Timestamp(5)), "once");
    }

    fn service() -> (ServiceId, ServiceSpec) {
        let pairing = Pairing::new(Kind::Command, Clustering::ActivePassive, Replication::None);
        let durability = Durability::Async { lag_bytes_max: 0, lag_max: Duration::ZERO };
        let spec = ServiceSpec::new(pairing.unwrap(), durability, Timing::of_command());
        ("jobs".into(), spec)
    }

    fn holding(term: u64) -> ServiceState {
        let (primary, rules) = ("a".into(), Vec::new());
        let appointment = Appointment { term: Term(term), primary, rules, phase: Phase::Active };
        let revision = Revision(term);
        ServiceState { appointment: Some(appointment), revision, ..ServiceState::default() }
    }

    #[test]
    fn inv12_what_is_taken_out_has_its_lease_until_its_name_is_back_or_the_voters_change() {
        let (jobs, spec) = service();
        let mut there = agreed(&["a", "b"]);
        there.spec.services.insert(jobs.clone(), spec.clone());
        there.services.insert(jobs.clone(), holding(3));
        let mut out = there.clone();
        out.services.clear();
        out.spec.services.clear();
        let seat = Seat { of: jobs.clone(), node: "a".into() };
        let mut divided = out.clone();
        let seated = ServiceSpec { seat: Some(seat.clone()), ..spec.clone() };
        divided.spec.services.insert(Seat::name(&jobs, &seat.node), seated);
        let mut others = out.clone();
        others.spec.nodes.remove(&NodeId::from("b"));
        let mut again = there.clone();
        let back = again.services.get_mut(&jobs).unwrap();
        (back.appointment, back.before.term) = (None, Term(3));
        for (next, is_back) in [(&there, true), (&again, true), (&divided, false), (&others, false)]
        {
            let mut memory = Memory::new(Timestamp(1));
            memory.learn(&out, &jobs, Timestamp(2));
            assert_eq!(memory.outlives(), None, "it knows nothing of it");
            memory.learn(&there, &jobs, Timestamp(2));
            assert_eq!((memory.leaving().is_none(), memory.outlives()), (true, None));
            memory.learn(&out, &jobs, Timestamp(3));
            assert_eq!(memory.leaving().unwrap().1.term(), Term(3));
            assert_eq!(memory.outlives(), Some(Term(3)));
            memory.learn(next, &jobs, Timestamp(4));
            assert_eq!(memory.outlives(), None, "by what is agreed of it, if anything");
            memory.learn(&out, &jobs, Timestamp(5));
            assert_eq!(memory.leaving().is_some(), is_back, "what was before is over");
        }
    }

    /// A seat leaves with its work, and not with its node alone.
    #[test]
    fn inv13_a_seat_is_supported_only_once_all_of_its_work_is_out() {
        let (jobs, spec) = service();
        let seat = |node: &str| {
            let seat = Seat { of: jobs.clone(), node: node.into() };
            let name = Seat::name(&jobs, &seat.node);
            (name, ServiceSpec { seat: Some(seat), ..spec.clone() })
        };
        let mut there = agreed(&["a", "b"]);
        there.spec.services = [seat("a"), seat("b")].into();
        there.services = [(seat("a").0, holding(3)), (seat("b").0, holding(4))].into();
        let mut one = there.clone();
        one.spec.services.remove(&seat("a").0);
        one.services.remove(&seat("a").0);
        let mut out = one.clone();
        out.spec.services.clear();
        out.services.clear();
        for (steps, left) in [(&[&there, &out][..], Some(Term(3))), (&[&there, &one, &out], None)] {
            let mut memory = Memory::new(Timestamp(1));
            for agreed in steps {
                memory.learn(agreed, &seat("a").0, Timestamp(2));
            }
            assert_eq!(memory.outlives(), left);
        }
    }
}
