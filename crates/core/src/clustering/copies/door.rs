//! Decides where a door of copies may lead, and what it says to copies that withdraw.
//! In: `DoorView`; what is not over at each copy. Out: `Look`: who may get work, and `DoorUse`s.
//! States of a copy, as a door sees it: takes work ⇄ withdrawn, or not well.
//! Keeps: INV-14 a door says that it obeys a withdrawal only once it sends nobody there any more.
//! Both follow from one look: its caller tells the door, counts what is not over, tells the copies.
//! A copy waits only for doors of nodes that its node hears; a door whose daemon has just started
//! is not heard yet, so that it first leads to those who say that they hear it. H41 what a node
//! said too long ago counts only where nobody else takes work: its daemon may be away while its
//! copy goes on.
//! Not here: what a copy waits for (`copy.rs`), who gets which work (`load_balanced`).
//! Tested by: `tests/door.rs`, and the simulator (`sim/src/singleton/beside`).

use super::takes_work;
use crate::facts::withdrawal::Withdrawn;
use crate::facts::{DoorUse, Link, NodeFacts};
use crate::ids::{NodeId, ServiceId};
use crate::time::{Observed, Timestamp};
use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

/// What a node knows when it leads clients to copies.
#[derive(Clone, Copy, Debug)]
pub struct DoorView<'a> {
    /// This node.
    pub me: &'a NodeId,
    /// The service.
    pub service: &'a ServiceId,
    /// What each node last said, this one included.
    pub facts: &'a BTreeMap<NodeId, Observed<NodeFacts>>,
    /// What a node said longer ago is not known to be so now.
    pub suspicion: Duration,
}

/// Where a door leads, and which withdrawals it obeys once it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The nodes whose copies may get work.
    pub takers: BTreeSet<NodeId>,
    /// Copies that withdrew. None of them is a taker.
    withdrawn: Withdrawn,
}

/// How well a node is known to take work: the best there are do it all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    /// It said so long ago.
    Once,
    /// It says so now, and nothing of this node's words.
    Heard,
    /// It says so now, and that it hears this node.
    Hears,
}

/// Looks once at what every node last said.
pub fn look(view: &DoorView<'_>, now: Timestamp) -> Look {
    let withdrawn = Withdrawn::of(view.service, view.facts);
    let mut look = Look { withdrawn, ..Look::default() };
    let mut best = Known::Once;
    for (node, facts) in view.facts {
        let Some(own) = facts.last_known().instances.get(view.service) else { continue };
        if !takes_work(own) {
            continue;
        }
        let known = known(view, facts, now);
        if known > best {
            best = known;
            look.takers.clear();
        }
        if known == best {
            look.takers.insert(node.clone());
        }
    }
    look
}

fn known(view: &DoorView<'_>, facts: &Observed<NodeFacts>, now: Timestamp) -> Known {
    let Some(facts) = facts.fresh(now, view.suspicion) else { return Known::Once };
    let hears = match facts.links.get(view.me) {
        // As it counts this node's words itself.
        Some(Link::Up(ago) | Link::Silent(ago)) => *ago <= view.suspicion,
        Some(Link::Refused(_) | Link::Never(_)) | None => false,
    };
    if facts.node == *view.me || hears { Known::Hears } else { Known::Heard }
}

impl Look {
    /// What the copies are told that withdrew, once the door leads to `takers` and nowhere else:
    /// what is not over there is counted after that, so that whoever was sent before is in it. A
    /// copy that the door does not count is told nothing, and waits.
    pub fn uses(&self, in_flight: impl Fn(&NodeId) -> Option<u32>) -> BTreeMap<NodeId, DoorUse> {
        self.withdrawn.uses(in_flight)
    }
}
