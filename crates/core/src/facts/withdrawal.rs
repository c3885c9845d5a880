//! Decides whether doors have let go of a copy that a plan is to end.
//! In: what each node last said. Out: `Ending`, and what a door says to copies that withdrew.
//! States: led to → (withdrawn) doors obey, one by one → (nothing is left there, or the bound
//! passed) it may end.
//! Keeps: INV-14 the doors of all nodes that answer, or may yet, are waited for, and what is under
//! way; none for longer than `drain_max`.
//! Not here: why it shall end (`clustering/copies`, `clustering/active_passive/singleton`).
//! Tested by: `clustering/copies/tests.rs`, `clustering/active_passive/singleton/tests`.

use super::{DoorUse, Link, NodeFacts};
use crate::ids::{NodeId, ServiceId};
use crate::reason::Reason;
use crate::spec::NodeSpec;
use crate::time::{Observed, Timestamp};
use alloc::collections::BTreeMap;
use alloc::format;
use core::time::Duration;

/// A node that does not answer for so long is lost. Longer than a daemon takes to be restarted,
/// during which its copy goes on.
pub const LOST_AFTER: Duration = Duration::from_secs(5);

/// What is wanted of one copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// What is agreed.
    #[default]
    Agreed,
    /// It shall start anew, whoever's turn it is.
    Restart,
    /// It shall end: its node or its service leaves.
    Leave,
}

/// What is known of the doors that may lead to a node's copy.
#[derive(Clone, Copy, Debug)]
pub struct Doors<'a> {
    /// The node.
    pub me: &'a NodeId,
    /// The service.
    pub service: &'a ServiceId,
    /// Every machine.
    pub nodes: &'a BTreeMap<NodeId, NodeSpec>,
    /// What each node last said, this one included.
    pub facts: &'a BTreeMap<NodeId, Observed<NodeFacts>>,
    /// What a node said longer ago is not known to be so now.
    pub suspicion: Duration,
    /// For what is under way when a copy is withdrawn.
    pub drain_max: Duration,
}

/// What doors still have at a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Doors that may send it something new.
    pub doors: u32,
    /// What is not over at those that do not.
    pub in_flight: u32,
}

impl Left {
    /// Nobody is led there, nor was.
    pub const fn is_nothing(self) -> bool {
        self.doors == 0 && self.in_flight == 0
    }
}

/// How far a copy is that shall end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Doors are to be told first.
    Withdraw,
    /// They know, or will soon, and something is not over: until then, if nothing changes.
    Wait(Timestamp, Reason),
    /// It may end; what there is to say of that.
    End(Reason),
}

impl Doors<'_> {
    /// What is left of a withdrawal, at the doors of the nodes that answer, or may yet.
    pub fn left(&self, withdrawn: Option<Timestamp>, now: Timestamp) -> Left {
        let unheard = self.nodes.keys().filter(|node| self.may_have_a_door(node)).count();
        let mut left = Left { doors: unheard.try_into().unwrap_or(u32::MAX), in_flight: 0 };
        for facts in self.facts.values() {
            let Some(facts) = facts.fresh(now, self.suspicion) else { continue };
            let Some(door) = facts.doors.get(self.service) else { continue };
            match door.get(self.me) {
                Some(uses) if Some(uses.obeys) == withdrawn => {
                    left.in_flight = left.in_flight.saturating_add(uses.in_flight);
                }
                Some(_) | None => left.doors += 1,
            }
        }
        left
    }

    /// How far a copy is that shall end for this reason.
    pub fn ending(&self, withdrawn: Option<Timestamp>, why: &Reason, now: Timestamp) -> Ending {
        let Some(since) = withdrawn else { return Ending::Withdraw };
        let left = self.left(withdrawn, now);
        let Left { doors, in_flight } = left;
        let until = since.plus(self.drain_max);
        if left.is_nothing() {
            return Ending::End(format!("{why}; no door has anything here any more").into());
        }
        if now >= until {
            let text = format!("{why}; drain_max has passed, and {in_flight} are cut");
            let unknown = format!(", beside what {doors} doors have that do not know of it");
            let text = if doors > 0 { text + &unknown } else { text };
            let reason = Reason::new(text).number("in_flight", in_flight);
            return Ending::End(reason.number("doors", doors));
        }
        let text =
            format!("{why}; {in_flight} are not over, and {doors} doors do not know of it yet");
        let reason = Reason::new(text).number("in_flight", in_flight).number("doors", doors);
        Ending::Wait(until, reason)
    }

    /// Whether a node that this daemon has never heard may send work here: it is no longer ago that
    /// the daemon started than what makes a node lost, and that one's daemon may be there.
    fn may_have_a_door(&self, node: &NodeId) -> bool {
        let own = self.facts.get(self.me).map(Observed::last_known);
        let Some(own) = own.filter(|own| own.doors.contains_key(self.service)) else {
            return false;
        };
        let is_new = matches!(own.links.get(node), Some(Link::Never(age)) if *age < LOST_AFTER);
        is_new && !self.facts.contains_key(node)
    }
}

/// What a node says that has several doors which may lead to a copy: it obeys a withdrawal once
/// each of them does.
pub fn joined<'a>(
    doors: impl IntoIterator<Item = &'a BTreeMap<NodeId, DoorUse>>,
) -> BTreeMap<NodeId, DoorUse> {
    let mut doors = doors.into_iter();
    let mut all = doors.next().cloned().unwrap_or_default();
    for door in doors {
        all.retain(|node, it| {
            let other = door.get(node).filter(|other| other.obeys == it.obeys);
            it.in_flight = it.in_flight.saturating_add(other.map_or(0, |other| other.in_flight));
            other.is_some()
        });
    }
    all
}

/// Copies that withdrew, by their own clocks since when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Withdrawn(BTreeMap<NodeId, Timestamp>);

impl Withdrawn {
    /// What every node last said of its own.
    pub fn of(service: &ServiceId, facts: &BTreeMap<NodeId, Observed<NodeFacts>>) -> Self {
        let withdrawn = facts.iter().filter_map(|(node, facts)| {
            Some((node.clone(), facts.last_known().instances.get(service)?.withdrawn?))
        });
        Self(withdrawn.collect())
    }

    /// What they are told once a door leads to none of them: what is not over there is counted
    /// after that, so that whoever was sent before is in it. A copy that the door does not count is
    /// told nothing, and waits.
    pub fn uses(&self, in_flight: impl Fn(&NodeId) -> Option<u32>) -> BTreeMap<NodeId, DoorUse> {
        let said = |(node, obeys): (&NodeId, &Timestamp)| {
            let in_flight = in_flight(node)?;
            Some((node.clone(), DoorUse { obeys: *obeys, in_flight }))
        };
        self.0.iter().filter_map(said).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inv14_a_node_obeys_once_each_of_its_doors_does() {
        let uses = |obeys, in_flight| DoorUse { obeys: Timestamp(obeys), in_flight };
        let door = |it: &[(&str, DoorUse)]| -> BTreeMap<NodeId, DoorUse> {
            it.iter().map(|(node, uses)| ((*node).into(), *uses)).collect()
        };
        let one = door(&[("a", uses(7, 2)), ("b", uses(9, 0))]);
        assert_eq!(joined([&one]), one);
        let same = door(&[("a", uses(7, 1)), ("b", uses(9, 0))]);
        let both = door(&[("a", uses(7, 3)), ("b", uses(9, 0))]);
        assert_eq!(joined([&one, &same]), both, "what each has is counted");
        let earlier = door(&[("a", uses(6, 0)), ("b", uses(9, 4))]);
        assert_eq!(joined([&one, &earlier]), door(&[("b", uses(9, 4))]), "one has not heard yet");
        assert_eq!(joined([&one, &door(&[])]), door(&[]), "one has just opened");
        assert_eq!(joined([]), door(&[]));
    }
}
