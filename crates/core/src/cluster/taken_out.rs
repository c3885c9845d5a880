//! Keeps what must be known of a service that was taken out of the configuration, should it come
//! back: somebody may not know yet that it was taken out.
//! In: the state before, the new specification. Out: `TakenOut`, and the state of one that is back.
//! Keeps: INV-5 terms never go back; INV-12 what was said before it was taken out counts no longer;
//! INV-13 a new seat waits for whatever its service was before, and a sitting never goes back.
//! Not here: how long that is waited out (`lease.rs`), what a node remembers (`memory.rs`).
//! Tested by: below.

use crate::cluster::partitions::Partitions;
use crate::cluster::state::{ClusterState, ServiceState};
use crate::ids::{ConfigVersion, Epoch, Revision, ServiceId, Term};
use crate::spec::{ClusterSpec, Seat};
use alloc::collections::BTreeMap;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// What a service leaves behind: somebody may not know yet that it was taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct TakenOut {
    /// Its last revision.
    pub revision: Revision,
    /// Its last term. Terms never go back, so that numbers to fence with do not (INV-5).
    pub term: Term,
    /// The greatest epoch of its partitions: what stores their results may refuse smaller ones.
    #[serde(default)]
    pub epoch: Epoch,
    /// Its lease and the margin for drift: for so long a copy of it may still run.
    pub outlast: Duration,
    /// Its copies ran side by side: no lease bounds them, only that they end.
    pub beside: bool,
}

impl ClusterState {
    /// The services of a new specification take the place of the old ones.
    pub(super) fn take_over(&mut self, new: &ClusterSpec, version: ConfigVersion) {
        let left = self.left_behind(new);
        self.taken_out.extend(left);
        let outlasts = self.outlasts(new);
        for (service, spec) in &new.services {
            let mut before = self.taken_out.remove(service).unwrap_or_default();
            let outlast = outlasts.get(service).copied().unwrap_or_default();
            before.outlast = before.outlast.max(outlast);
            let begun = || ServiceState { since: version, ..ServiceState::begun(before) };
            let state = self.services.entry(service.clone()).or_insert_with(begun);
            state.divide(spec, version);
        }
        self.services.retain(|service, _| new.services.contains_key(service));
    }

    /// For how long copies may still run that the services of new seats had before: their work was
    /// not divided then, or among other nodes.
    fn outlasts(&self, new: &ClusterSpec) -> BTreeMap<ServiceId, Duration> {
        let of = |seat: &Seat| {
            let left = self.taken_out.get(&seat.of).map(|it| it.outlast);
            let before = self.services.get(&seat.of).map(|it| it.before.outlast);
            left.max(before).unwrap_or_default()
        };
        let seats = new.services.iter().filter_map(|(id, spec)| Some((id, spec.seat.as_ref()?)));
        seats.map(|(id, seat)| (id.clone(), of(seat))).collect()
    }

    /// What services leave behind that the new specification does not have.
    fn left_behind(&self, new: &ClusterSpec) -> BTreeMap<ServiceId, TakenOut> {
        let mut left = BTreeMap::new();
        for (service, state) in &self.services {
            if let Some(old) = self.spec.services.get(service)
                && !new.services.contains_key(service)
            {
                let outlast = old.timing.lease.saturating_add(old.timing.drift_margin);
                let outlast = outlast.max(state.before.outlast);
                let epoch = state.partitions.as_ref().map(Partitions::epoch_max);
                let epoch = epoch.unwrap_or_default().max(state.before.epoch);
                let (revision, term) = (state.revision, state.term());
                let beside = old.copies.is_some();
                left.insert(service.clone(), TakenOut { revision, term, epoch, outlast, beside });
            }
        }
        left
    }
}

impl ServiceState {
    /// A service that is new, or comes back.
    pub(super) fn begun(before: TakenOut) -> Self {
        // No copy of an earlier term counts as one of the present sitting, which never goes back.
        let begun = Self { before, sitting: before.term, ..Self::default() };
        Self { revision: begun.first_revision(), ..begun }
    }

    /// What was said of a smaller one was said before it was taken out, and counts no longer.
    pub fn first_revision(&self) -> Revision {
        let is_new = self.before == TakenOut::default();
        if is_new { Revision::default() } else { self.before.revision.next() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::command::{Command, Config};
    use crate::cluster::state::{Applied, Appointment, Phase};
    use crate::ids::NodeId;
    use crate::pairing::{Clustering, Kind, Pairing, Replication};
    use crate::spec::{NodeRole, NodeSpec, ServiceSpec, Timing};
    use alloc::boxed::Box;
    use alloc::string::String;
    use alloc::vec::Vec;

    fn jobs(clustering: Clustering, timing: Timing) -> ServiceSpec {
        let pair = Pairing::new(Kind::Command, clustering, Replication::None);
        ServiceSpec::of_command(pair.unwrap_or_else(|_| unreachable!()), timing)
    }

    fn apply(state: &mut ClusterState, nodes: &[&str], jobs: Option<ServiceSpec>) {
        let node = NodeSpec { role: NodeRole::Data, zone: None, priority: 100, capacity: 1 };
        let nodes = nodes.iter().map(|name| (NodeId::from(*name), node.clone())).collect();
        let services = jobs.map(|jobs| ("jobs".into(), jobs)).into_iter().collect();
        let spec = ClusterSpec { nodes, services }.with_seats();
        let config = Box::new(Config { text: String::new(), spec });
        let applied = state.apply(&Command::Configure { expected: state.config_version, config });
        assert_eq!(applied, Applied::Changed);
    }

    fn configure(state: &mut ClusterState, has_jobs: bool) {
        let own = jobs(Clustering::ActivePassive, Timing::of_command());
        apply(state, &[], has_jobs.then_some(own));
    }

    #[test]
    fn inv13_a_new_seat_waits_for_what_its_service_was_before() {
        let mut state = ClusterState::default();
        let timing = Timing::of_command();
        let long = Timing { lease: timing.lease * 20, ..timing };
        let usual = timing.lease + timing.drift_margin;
        apply(&mut state, &["a"], Some(jobs(Clustering::ActivePassive, long)));
        apply(&mut state, &["a"], None);
        let divided = || jobs(Clustering::ActiveActive, timing).divided(3);
        apply(&mut state, &["a"], Some(divided()));
        let outlast = |state: &ClusterState, node: &str| {
            state.services[&Seat::name(&"jobs".into(), &node.into())].before.outlast
        };
        assert_eq!(outlast(&state, "a"), long.lease + long.drift_margin);
        apply(&mut state, &["a", "b"], Some(divided()));
        assert_eq!(outlast(&state, "b"), long.lease + long.drift_margin, "however late it comes");
        // Of a service that nobody knew before nothing can be left.
        let mut state = ClusterState::default();
        apply(&mut state, &["a"], Some(divided()));
        assert_eq!(outlast(&state, "a"), Duration::ZERO);
        apply(&mut state, &["a"], None);
        apply(&mut state, &["a", "b"], Some(divided()));
        assert_eq!((outlast(&state, "a"), outlast(&state, "b")), (usual, usual));
    }

    #[test]
    fn a_sitting_never_goes_back() {
        let (mut state, seat) = (ClusterState::default(), Seat::name(&"jobs".into(), &"a".into()));
        let divided = || jobs(Clustering::ActiveActive, Timing::of_command()).divided(3);
        apply(&mut state, &["a", "b"], Some(divided()));
        let own = state.services.entry(seat.clone()).or_default();
        let (term, rules, phase) = (Term(6), Vec::new(), Phase::Active);
        own.appointment = Some(Appointment { term, primary: "a".into(), rules, phase });
        own.sitting = Term(5);
        apply(&mut state, &["b"], Some(divided()));
        apply(&mut state, &["a", "b"], Some(divided()));
        assert_eq!(
            state.services[&seat].sitting,
            Term(6),
            "what it owned in an earlier one is free"
        );
    }

    #[test]
    fn a_service_that_comes_back_begins_above_all_that_it_had() {
        let (mut state, jobs) = (ClusterState::default(), ServiceId::from("jobs"));
        configure(&mut state, true);
        assert_eq!(state.services[&jobs].term(), Term(0));
        let own = state.services.entry(jobs.clone()).or_default();
        own.revision = Revision(9);
        let (term, rules, phase) = (Term(6), Vec::new(), Phase::Active);
        own.appointment = Some(Appointment { term, primary: "a".into(), rules, phase });
        configure(&mut state, false);
        assert!(state.services.is_empty());
        configure(&mut state, true);
        let back = &state.services[&jobs];
        assert_eq!((back.term(), back.revision), (Term(6), Revision(10)));
        assert_eq!(back.first_revision(), Revision(10));
        let timing = Timing::of_command();
        assert_eq!(back.before.outlast, timing.lease + timing.drift_margin);
        assert!(state.taken_out.is_empty());
        configure(&mut state, false);
        configure(&mut state, true);
        assert_eq!(state.services[&jobs].term(), Term(6), "nobody was appointed in between");
        assert_eq!(state.services[&jobs].first_revision(), Revision(11));
    }

    #[test]
    fn epochs_of_divided_work_that_comes_back_go_on_above_all_that_were() {
        let table = |epoch| Some(Partitions::new(3, ConfigVersion(1), Epoch(epoch)));
        let (mut state, jobs) = (ClusterState::default(), ServiceId::from("jobs"));
        configure(&mut state, true);
        state.services.entry(jobs.clone()).or_default().partitions = table(7);
        for _ in 0..2 {
            configure(&mut state, false);
            configure(&mut state, true);
            assert_eq!(state.services[&jobs].before.epoch, Epoch(7), "or it is not divided");
        }
        let own = state.services.entry(jobs.clone()).or_default();
        let divided = ServiceSpec { partitions: Some(3), ..state.spec.services[&jobs].clone() };
        own.divide(&divided, ConfigVersion(9));
        assert_eq!(own.partitions.as_ref().map(Partitions::epoch_max), Some(Epoch(7)));
    }
}
