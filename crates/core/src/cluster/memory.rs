//! Decides since when a node knows what a lease may rest on: its daemon's start, the last change of
//! the voters, the return of a service that was taken out.
//! In: what is agreed, each time it is looked at. Out: that moment; whether what was told is of the
//! past.
//! Keeps: INV-1, INV-12 a ballot waits for every lease that this node may have supported, however
//! little it saw of what was agreed in between: two changes may be applied at once.
//! Not here: how long is waited (`lease.rs`).
//! Tested by: below, and the simulator, whose nodes ask it as well.

use crate::cluster::state::ClusterState;
use crate::cluster::taken_out::TakenOut;
use crate::ids::{NodeId, ServiceId};
use crate::time::Timestamp;
use alloc::collections::BTreeSet;

/// What a node remembers of what was agreed about one service.
#[derive(Clone, Debug)]
pub struct Memory {
    since: Timestamp,
    voters: BTreeSet<NodeId>,
    before: Option<TakenOut>,
}

impl Memory {
    /// Of a daemon that starts now.
    pub const fn new(now: Timestamp) -> Self {
        Self { since: now, voters: BTreeSet::new(), before: None }
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
        }
        let Some(state) = agreed.services.get(service) else { return false };
        let anew = self.before.replace(state.before).is_some_and(|before| before != state.before);
        if anew {
            self.since = now;
        }
        anew
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{NodeRole, NodeSpec};
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
}
