//! Decides which partition changes hands, and when it may.
//! In: `ControllerView` of a command whose work is divided. Out: `Plan`: at most one command, for
//! many partitions.
//! States of a node: away → well → (fails, is emptied, silent) keeps or leaves what it owns; well →
//! (its copy is out of date, and it is its turn) leaves all of it → starts anew → well.
//! Keeps: INV-13 a partition is given only if nobody owns it, its owner's sitting passed, or its
//! owner said "released" for exactly that epoch; INV-6 planned on a revision and on epochs; H37 a
//! node that was lost again and again is given nothing for a while; INV-14 one copy at a time is
//! emptied to start anew, while all the others work: one that does not come back stops the round.
//! Not here: who shall own what (`placement.rs`), sittings (`seat.rs`), what is said of it all
//! (`standing.rs`).
//! Tested by: `tests.rs`, and the simulator (`sim/src/singleton`).

use super::placement::{Weights, balance, fill};
use crate::cluster::command::ServiceCommand;
use crate::cluster::partitions::{Change, Owner, Partition, Partitions, What};
use crate::cluster::state::{Cause, Phase, ServiceState};
use crate::clustering::active_passive::{ControllerView, Plan};
use crate::facts::{Data, InstanceFacts, Link, Process};
use crate::ids::{Epoch, NodeId, PartitionId, Term};
use crate::reason::Reason;
use crate::spec::Seat;
use crate::time::Timestamp;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::time::Duration;

/// Changes in one command: its size stays far from what one message may have.
pub const CHANGES_MAX: usize = 512;
/// A copy that was not well for so long loses what it owns; a start takes less.
pub const UNWELL_MAX: Duration = Duration::from_secs(3);
/// Failures in a row after which it does: a process that died once is back at once.
pub const FAILURES_MAX: u32 = 3;
/// Losses of a node are counted for so long, in milliseconds (H37).
const REMEMBERED_MS: u64 = 600_000;
/// After its second loss a node is given nothing for so long; doubles with each.
const HELD_OFF_MS: u64 = 5_000;

/// What counts of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// How much it can do.
    pub weight: u32,
    /// For whom its copy works now.
    pub sitting: Term,
    /// It is heard now.
    pub answers: bool,
    /// What it owns may stay.
    pub keeps: bool,
    /// It may be given more.
    pub gains: bool,
    /// Its copy runs and is well.
    pub runs: bool,
    /// It is being emptied.
    pub draining: bool,
    /// Its copy runs as an earlier configuration said.
    pub is_outdated: bool,
    /// Why it is as it is.
    pub why: String,
}

/// Plans who owns what.
pub fn plan(view: &ControllerView<'_>, table: &Partitions, now: Timestamp) -> Plan {
    if view.state.paused {
        return Plan::wait("paused by an operator: no partition moves");
    }
    let places = places(view, now);
    let wanted = wanted(view, table, &places);
    let mut changes = Vec::new();
    for ((id, it), to) in table.iter().zip(wanted) {
        let what = to.and_then(|to| change(view, &places, (id, it), &to));
        changes.extend(what.map(|what| Change { partition: id, epoch: it.epoch, what }));
    }
    changes.truncate(CHANGES_MAX);
    let reason = reason(view, table, &places, &changes);
    if changes.is_empty() {
        return Plan::wait(reason);
    }
    let text = reason.to_string();
    Plan::propose(ServiceCommand::Partition { changes, reason: text }, reason)
}

/// What counts of each data node.
pub fn places(view: &ControllerView<'_>, now: Timestamp) -> BTreeMap<NodeId, Place> {
    let mut places: BTreeMap<NodeId, Place> =
        view.data_nodes().map(|node| (node.clone(), place(view, node, now))).collect();
    let fit = |it: &Place| it.gains && !it.draining;
    if places.values().any(fit) {
        give_turn(view, &mut places);
        for it in places.values_mut().filter(|it| it.draining) {
            (it.keeps, it.gains) = (false, false);
        }
        return places;
    }
    // Nobody is beyond doubt: those that work now are better than none, and among them those that
    // are not being emptied.
    let some = places.values().any(|it| it.runs && !it.draining);
    for it in places.values_mut() {
        it.gains = it.runs && !(some && it.draining);
        it.keeps = (it.keeps || it.gains) && !(some && it.draining);
    }
    places
}

/// Copies that are out of date start anew once they own nothing (`singleton/instance.rs`). One that
/// owns nothing is given nothing until then; of the others one is emptied, as soon as all that are
/// heard work: the one that has least left, which is the one that is being emptied.
fn give_turn(view: &ControllerView<'_>, places: &mut BTreeMap<NodeId, Place>) {
    let Some(table) = &view.state.partitions else { return };
    let owned: BTreeMap<NodeId, usize> =
        places.iter().map(|(node, it)| (node.clone(), table.owned_by(node, it.sitting))).collect();
    for (node, it) in places.iter_mut().filter(|(_, it)| it.is_outdated) {
        if owned[node] == 0 {
            (it.gains, it.why) = (false, "starts its copy anew, which is out of date".into());
        }
    }
    let works = |it: &Place| it.gains || !it.answers || it.draining;
    if !places.values().all(works) {
        return;
    }
    let stays = |node: &NodeId| {
        let is_its = |it: &&Owner| it.node == *node;
        let all = table.iter().filter(|(_, it)| it.releasing.is_none());
        all.filter_map(|(_, it)| it.owner.as_ref()).filter(is_its).count()
    };
    let others =
        |node: &NodeId| places.iter().any(|(other, it)| other != node && it.gains && !it.draining);
    let waits = places.iter().filter(|(_, it)| it.is_outdated && !it.draining);
    let next = waits.map(|(node, _)| node).min_by_key(|node| stays(node)).cloned();
    let Some(it) = next.filter(others).and_then(|node| places.get_mut(&node)) else { return };
    (it.keeps, it.gains) = (false, false);
    it.why = "is emptied first: its copy is out of date, and starts anew".into();
}

fn place(view: &ControllerView<'_>, node: &NodeId, now: Timestamp) -> Place {
    let name = Seat::name(view.service, node);
    let seat = view.services.get(&name);
    let weight = view.nodes.get(node).map_or(1, |spec| spec.capacity);
    let refused = matches!(view.link(view.me, node, now), Some(Link::Refused(_)));
    let own = view.fresh(node, now).filter(|_| !refused).and_then(|it| it.instances.get(&name));
    let draining = view.draining.contains(node);
    let sitting = seat.map_or(Term(0), |seat| seat.sitting);
    let away = |why: &str| Place {
        weight,
        sitting,
        answers: own.is_some(),
        keeps: false,
        gains: false,
        runs: false,
        draining,
        is_outdated: false,
        why: why.to_string(),
    };
    let (Some(own), Some(seat)) = (own, seat) else { return away("it is not heard") };
    if let Data::Quarantined { reason } = &own.data {
        return away(reason);
    }
    if own.starts_failed >= FAILURES_MAX {
        return away(&format!("its copy failed {} times in a row", own.starts_failed));
    }
    if own.seat.unwell >= UNWELL_MAX {
        return away(&format!("no copy was well for {} ms", own.seat.unwell.as_millis()));
    }
    let keeps = Place { keeps: sitting > Term(0), ..away("its copy is not well yet") };
    if !runs(own, seat) {
        return keeps;
    }
    let runs = Place { runs: true, is_outdated: own.pending_restart, ..keeps };
    match held_off(view, seat) {
        Some(ms) => Place { why: format!("was lost again and again, waits {ms} ms (H37)"), ..runs },
        None if own.starts_failed > 0 => Place { why: "its copy failed lately".into(), ..runs },
        None => Place { gains: true, why: "well".into(), ..runs },
    }
}

/// Its copy works for the sitting that is agreed, and the agreed state says so.
fn runs(own: &InstanceFacts, seat: &ServiceState) -> bool {
    let is_active = seat.appointment.as_ref().is_some_and(|it| it.phase == Phase::Active);
    is_active && own.process == Process::Primary && own.serving == Some(seat.term())
}

/// For how long a node that was lost again and again is given nothing (H37).
fn held_off(view: &ControllerView<'_>, seat: &ServiceState) -> Option<u64> {
    let is_recent = |at: u64| view.unix_ms.saturating_sub(at) < REMEMBERED_MS;
    let losses = seat.history.iter().filter(|line| {
        matches!(line.cause, Cause::NodeDied | Cause::NodeSilent) && is_recent(line.at_unix_ms)
    });
    let losses = u32::try_from(losses.count()).unwrap_or(u32::MAX);
    let wait = HELD_OFF_MS << losses.checked_sub(2)?.min(5);
    let last = seat.history.last()?;
    // Recorded by a clock that is ahead of ours: how long ago that was is not known.
    let passed = view.unix_ms.checked_sub(last.active_unix_ms.unwrap_or(last.at_unix_ms))?;
    wait.checked_sub(passed).filter(|left| *left > 0)
}

/// Who shall own each. While somebody's fate is open only what is nobody's is placed.
pub(super) fn wanted(
    view: &ControllerView<'_>,
    table: &Partitions,
    places: &BTreeMap<NodeId, Place>,
) -> Vec<Option<NodeId>> {
    let now: Vec<Option<NodeId>> = table.iter().map(|(_, it)| stands(view, places, it)).collect();
    let owns = |node: &NodeId| now.iter().flatten().any(|owner| owner == node);
    let counts = |(node, it): &(&NodeId, &Place)| it.gains || it.keeps && owns(node);
    let counting: Vec<_> = places.iter().filter(counts).collect();
    let weights: Weights = counting.iter().map(|(node, it)| ((*node).clone(), it.weight)).collect();
    if counting.iter().all(|(_, it)| it.gains) {
        return balance(&now, &weights);
    }
    fill(&now, &weights, |node| places.get(node).is_some_and(|it| it.gains))
}

/// With whom a partition is, or will be once it is released; nobody where it must go elsewhere.
fn stands(
    view: &ControllerView<'_>,
    places: &BTreeMap<NodeId, Place>,
    it: &Partition,
) -> Option<NodeId> {
    let owner = it.owner.as_ref().filter(|owner| !is_lost(view, owner))?;
    let next = it.releasing.as_ref().filter(|to| places.get(*to).is_some_and(|it| it.gains));
    let keeps = places.get(&owner.node).is_some_and(|it| it.keeps);
    next.or_else(|| keeps.then_some(&owner.node)).cloned()
}

/// Whether the owner's copy is proven gone.
pub fn is_lost(view: &ControllerView<'_>, owner: &Owner) -> bool {
    let seat = view.services.get(&Seat::name(view.service, &owner.node));
    seat.is_none_or(|seat| seat.sitting > owner.sitting)
}

/// Whether the owner's node said that nobody there works on it any more. It is durable, so it
/// counts however long ago it was heard.
pub(super) fn is_released(
    view: &ControllerView<'_>,
    owner: &Owner,
    (id, epoch): (PartitionId, Epoch),
) -> bool {
    let since = view.state.partitions.as_ref().map(|table| table.since);
    let told = view.facts.get(&owner.node).map(|facts| facts.last_known());
    let own = told.and_then(|it| it.instances.get(&Seat::name(view.service, &owner.node)));
    own.is_some_and(|own| {
        Some(own.seat.table) == since && own.seat.released.get(&id) == Some(&epoch)
    })
}

fn change(
    view: &ControllerView<'_>,
    places: &BTreeMap<NodeId, Place>,
    (id, it): (PartitionId, &Partition),
    to: &NodeId,
) -> Option<What> {
    let next = places.get(to)?;
    let give = || {
        let owner = Owner { node: to.clone(), sitting: next.sitting };
        next.gains.then_some(What::Give(owner))
    };
    let Some(owner) = it.owner.as_ref().filter(|owner| !is_lost(view, owner)) else {
        return give();
    };
    if owner.node == *to {
        return it.releasing.is_some().then_some(What::Keep);
    }
    let released = it.releasing.is_some() && is_released(view, owner, (id, it.epoch));
    let answers = places.get(&owner.node).is_some_and(|it| it.answers);
    match it.releasing {
        _ if released => give(),
        None if answers && next.gains => Some(What::Release(to.clone())),
        Some(_) | None => None,
    }
}

fn reason(
    view: &ControllerView<'_>,
    table: &Partitions,
    places: &BTreeMap<NodeId, Place>,
    changes: &[Change],
) -> Reason {
    let lives = |owner: &&Owner| !is_lost(view, owner);
    let owned = table.iter().filter_map(|(_, it)| it.owner.as_ref()).filter(lives).count();
    let count = table.count();
    let mut text = format!("{owned} of {count} partitions are owned");
    let mut numbers = [("owned", owned), ("given", 0), ("released", 0), ("kept", 0)];
    for change in changes {
        numbers[match &change.what {
            What::Give(_) => 1,
            What::Release(_) => 2,
            What::Keep => 3,
        }]
        .1 += 1;
    }
    let said = ["", "given to who shall own them", "to be released", "kept after all"];
    for ((_, many), words) in numbers.iter().zip(said).skip(1).filter(|((_, many), _)| *many > 0) {
        text = format!("{text}; {many} {words}");
    }
    for (node, it) in places.iter().filter(|(_, it)| !it.gains) {
        let why = if it.draining { "is being emptied" } else { &it.why };
        text = format!("{text}; {node}: {why}");
    }
    let reason = Reason::new(text).number("partitions", count);
    numbers.into_iter().fold(reason, |reason, (name, many)| reason.number(name, many))
}
