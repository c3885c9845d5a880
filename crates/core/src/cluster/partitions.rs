//! Decides who owns which partition of a command whose work is divided, as agreed.
//! In: changes, each for the epoch that it was planned on. Out: `Partitions`.
//! States of one: nobody's → owned → (released to) releasing → owned by another; owned →
//! (its owner's sitting passed) owned by another.
//! Keeps: INV-5 epochs never go back; INV-6 a change that was planned on another epoch changes
//! nothing. INV-13 rests on who proposes: whether an owner is proven to work no more is known to
//! the controller alone (`clustering/active_active/controller.rs`).
//! Tested by: below, and the simulator (`sim/src/singleton`).

use crate::cluster::state::{Applied, ServiceState, ignored};
use crate::ids::{ConfigVersion, Epoch, NodeId, PartitionId, Term};
use crate::spec::ServiceSpec;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// More are refused: every node keeps all of them, and every change is told to every node.
pub const PARTITIONS_MAX: u32 = 4096;

/// All partitions of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partitions {
    /// The configuration that divided the work: tells this table from one that was there before.
    pub since: ConfigVersion,
    all: Vec<Partition>,
}

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Grows with each change of its owner.
    pub epoch: Epoch,
    /// Who may work on it, until it is proven that it does not.
    pub owner: Option<Owner>,
    /// To whom its owner shall release it.
    pub releasing: Option<NodeId>,
}

/// A copy that owns partitions: a node's, in one sitting. Of a later sitting it owns nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The node.
    pub node: NodeId,
    /// The last term of its seat for which all earlier copies were proven gone.
    pub sitting: Term,
}

/// A change of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which.
    pub partition: PartitionId,
    /// The epoch that it was planned on.
    pub epoch: Epoch,
    /// What.
    pub what: What,
}

/// What becomes of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// It has an owner from now on: nobody else works on it, which was proven.
    Give(Owner),
    /// Its owner shall end its work on it, and say so.
    Release(NodeId),
    /// Its owner keeps it after all.
    Keep,
}

impl Partitions {
    /// So many, owned by nobody; the first owner of each gets an epoch above that one.
    pub fn new(count: u32, since: ConfigVersion, epoch: Epoch) -> Self {
        let nobodys = Partition { epoch, ..Partition::default() };
        Self { since, all: (0..count).map(|_| nobodys.clone()).collect() }
    }

    /// The greatest that any of them has.
    pub fn epoch_max(&self) -> Epoch {
        self.all.iter().map(|it| it.epoch).max().unwrap_or_default()
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        u32::try_from(self.all.len()).unwrap_or(u32::MAX)
    }

    /// One of them.
    pub fn get(&self, partition: PartitionId) -> Option<&Partition> {
        self.all.get(usize::try_from(partition.0).ok()?)
    }

    /// Who may work on it.
    pub fn owner(&self, partition: PartitionId) -> Option<&Owner> {
        self.get(partition)?.owner.as_ref()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = (PartitionId, &Partition)> {
        (0..).map(PartitionId).zip(&self.all)
    }

    /// How many a node's copy owns in that sitting.
    pub fn owned_by(&self, node: &NodeId, sitting: Term) -> usize {
        let is_its = |it: &&Owner| it.node == *node && it.sitting == sitting;
        self.all.iter().filter_map(|it| it.owner.as_ref()).filter(is_its).count()
    }

    /// Folds changes in; how many did.
    pub fn apply(&mut self, changes: &[Change]) -> usize {
        changes.iter().filter(|change| self.change(change)).count()
    }

    fn change(&mut self, change: &Change) -> bool {
        let index = usize::try_from(change.partition.0).ok();
        let Some(it) = index.and_then(|index| self.all.get_mut(index)) else { return false };
        if it.epoch != change.epoch {
            return false;
        }
        match &change.what {
            What::Give(owner) => {
                it.owner = Some(owner.clone());
                it.releasing = None;
                it.epoch = it.epoch.next();
            }
            What::Release(to) => {
                if it.owner.is_none() || it.releasing.as_ref() == Some(to) {
                    return false;
                }
                it.releasing = Some(to.clone());
            }
            // Under another epoch: what was said about the release counts no more.
            What::Keep => {
                if it.releasing.take().is_none() {
                    return false;
                }
                it.epoch = it.epoch.next();
            }
        }
        true
    }
}

impl ServiceState {
    /// Its work is divided when it is configured to be, once.
    pub(super) fn divide(&mut self, spec: &ServiceSpec, version: ConfigVersion) {
        if let (Some(count), None) = (spec.partitions, &self.partitions) {
            self.partitions = Some(Partitions::new(count, version, self.before.epoch));
        }
    }

    pub(super) fn partition(&mut self, changes: &[Change]) -> Applied {
        match self.partitions.as_mut().map(|table| table.apply(changes)) {
            Some(0) => ignored("the partitions changed in the meantime"),
            Some(_) => Applied::Changed,
            None => ignored("its work is not divided"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Give(Owner { node, sitting }) => {
                write!(f, "give {} to {node} in term {sitting}", self.partition)
            }
            What::Release(to) => write!(f, "release {} to {to}", self.partition),
            What::Keep => write!(f, "keep {}", self.partition),
        }
    }
}

/// So many changes are shown to people.
const SHOWN_MAX: usize = 8;

pub(super) fn fmt(changes: &[Change], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (index, change) in changes.iter().take(SHOWN_MAX).enumerate() {
        write!(f, "{}{change}", if index == 0 { "" } else { ", " })?;
    }
    match changes.len().saturating_sub(SHOWN_MAX) {
        0 => Ok(()),
        more => write!(f, ", and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn owner(node: &str, sitting: u64) -> Owner {
        Owner { node: node.into(), sitting: Term(sitting) }
    }

    fn change(partition: u32, epoch: u64, what: What) -> Change {
        Change { partition: PartitionId(partition), epoch: Epoch(epoch), what }
    }

    #[test]
    fn a_change_counts_for_the_epoch_that_it_was_planned_on() {
        let mut all = Partitions::new(2, ConfigVersion(1), Epoch(0));
        let give = change(1, 0, What::Give(owner("a", 3)));
        assert_eq!(all.apply(&[give.clone(), give]), 1, "once (INV-6)");
        assert_eq!(all.owner(PartitionId(1)), Some(&owner("a", 3)));
        assert_eq!(
            (all.owned_by(&"a".into(), Term(3)), all.owned_by(&"a".into(), Term(4))),
            (1, 0)
        );
        let beyond = change(2, 0, What::Give(owner("a", 3)));
        assert_eq!(all.apply(&[beyond, change(0, 0, What::Release("b".into()))]), 0);
    }

    #[test]
    fn a_release_keeps_the_owner_until_it_is_given_on_or_called_off() {
        let mut all = Partitions::new(1, ConfigVersion(1), Epoch(0));
        let release = change(0, 1, What::Release("b".into()));
        let changes = vec![change(0, 0, What::Give(owner("a", 3))), release.clone(), release];
        assert_eq!(all.apply(&changes), 2);
        let it =
            Partition { epoch: Epoch(1), owner: Some(owner("a", 3)), releasing: Some("b".into()) };
        assert_eq!(all.get(PartitionId(0)), Some(&it));
        let mut kept = all.clone();
        assert_eq!(kept.apply(&[change(0, 1, What::Keep), change(0, 2, What::Keep)]), 1);
        let given = change(0, 1, What::Give(owner("b", 5)));
        assert_eq!(
            kept.apply(core::slice::from_ref(&given)),
            0,
            "the release was called off meanwhile"
        );
        assert_eq!(all.apply(&[given]), 1);
        assert_eq!(
            all.get(PartitionId(0)).map(|it| (it.epoch, it.releasing.is_some())),
            Some((Epoch(2), false))
        );
    }
}
