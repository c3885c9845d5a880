//! Decides what the node of a door knows, and since when: a door that acts against it is wrong.
//! Not here: what doors do (`judging.rs`).

use crate::singleton::{World, index};
use std::time::Duration;
use tandem_core::cluster::partitions::{Owner, Partition};
use tandem_core::cluster::state::ClusterState;
use tandem_core::facts::{InstanceFacts, Process};
use tandem_core::ids::{NodeId, PartitionId};
use tandem_core::spec::{Seat, Timing};

/// Why whoever owns a partition does not take what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Away {
    /// Nobody owns it.
    Unowned,
    /// Its sitting was passed: it is proven gone.
    Passed,
    /// Its copy does not run, is not well, or is one of an earlier sitting.
    Down,
}

impl World {
    /// For how long a door's node has not heard another one; none: it never has.
    pub(super) fn silent_for(&self, n: usize, peer: usize) -> Option<Duration> {
        let now = self.nodes[n].clock.at(self.now);
        if n == peer {
            return Some(Duration::ZERO);
        }
        let facts = &self.nodes[n].daemon.as_ref()?.parts[0].hub.facts;
        facts.get(&self.nodes[peer].id).map(|it| it.age(now))
    }

    pub(super) fn hears_majority(&self, n: usize) -> bool {
        let suspicion = Timing::of_command().suspicion;
        let agreed = self.agreed(n);
        let is_heard =
            |it: &&NodeId| self.silent_for(n, index(it)).is_some_and(|age| age <= suspicion);
        let nodes = &agreed.spec.nodes;
        nodes.keys().filter(is_heard).count() * 2 > nodes.len()
    }

    pub(super) fn note_heard(&mut self, n: usize) {
        if self.hears_majority(n) {
            self.keyed.judged.heard.entry(n).or_insert(self.now);
        } else {
            self.keyed.judged.heard.remove(&n);
        }
    }

    pub(super) fn note_known(&mut self, n: usize, partition: PartitionId, it: &Partition) {
        let is = (it.epoch, it.releasing.is_some());
        let known = self.keyed.judged.known.entry((n, partition)).or_insert((is.0, is.1, self.now));
        if (known.0, known.1) != is {
            *known = (is.0, is.1, self.now);
        }
    }

    /// Also called whenever the door looks: what it saw come and go is no longer as it was before.
    pub(in super::super) fn note_away(&mut self, n: usize) {
        let agreed = self.agreed(n);
        let state = self.work.as_ref().and_then(|work| agreed.services.get(work));
        let table = state.and_then(|state| state.partitions.as_ref());
        for (partition, it) in table.into_iter().flat_map(|table| table.iter()) {
            let why = match &it.owner {
                None => Some(Away::Unowned),
                Some(owner) => self.why_away(n, &agreed, owner),
            };
            let (away, at) = (&mut self.keyed.judged.away, (n, partition));
            match why {
                None => _ = away.remove(&at),
                Some(why) => away.entry(at).or_insert((why, self.now)).0 = why,
            }
        }
    }

    fn why_away(&self, n: usize, agreed: &ClusterState, owner: &Owner) -> Option<Away> {
        let seat = Seat::name(self.work.as_ref()?, &owner.node);
        if agreed.services.get(&seat).is_none_or(|it| it.sitting > owner.sitting) {
            return Some(Away::Passed);
        }
        let daemon = self.nodes[n].daemon.as_ref()?;
        let own = if index(&owner.node) == n {
            Some(&daemon.parts[n].own)
        } else {
            // Of whom nothing was ever heard is silent, and judged as that.
            daemon.parts[0].hub.facts.get(&owner.node)?.last_known().instances.get(&seat)
        };
        let takes = |own: &InstanceFacts| {
            let is_well = own.process == Process::Primary && own.serving.is_some();
            is_well && own.promoted >= owner.sitting
        };
        (!own.is_some_and(takes)).then_some(Away::Down)
    }
}
