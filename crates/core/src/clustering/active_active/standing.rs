//! Decides what can be said of divided work: who owns what, who shall, and what that waits for.
//! In: `ControllerView` of a command whose work is divided. Out: `Standing` of one partition,
//! `Shares` of all.
//! Keeps: INV-13, nothing follows from what is said here. It goes by the controller's own judgement
//! of what this node knows, so it says what the leader would plan, not what it did.
//! Not here: what is planned (`controller.rs`), for how long something has been so (the shell).
//! Tested by: `tests/standing.rs`.

use super::controller::{Place, is_lost, is_released, places, wanted};
use crate::cluster::partitions::{Owner, Partition};
use crate::clustering::active_passive::ControllerView;
use crate::ids::{Epoch, NodeId, PartitionId};
use crate::reason::Reason;
use crate::time::Timestamp;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Where one partition stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Grows with each change of its owner.
    pub epoch: Epoch,
    /// How it is owned.
    pub state: State,
    /// Who may work on it; the last one who could, where that one is lost.
    pub owner: Option<NodeId>,
    /// Who shall own it instead.
    pub to: Option<NodeId>,
    /// What has to happen before that.
    pub wait: Wait,
    /// The same in words.
    pub because: Reason,
}

/// How a partition is owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its owner works on it.
    Owned,
    /// Its owner was asked to end that, and may still be at it.
    Releasing,
    /// Its owner's copy is proven gone: nobody works on it.
    Lost,
    /// It never had an owner.
    Unowned,
}

/// What a partition waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Nothing: it stays where it is.
    Nothing,
    /// The next plan of the leader: everything else is there.
    Plan,
    /// The word of this node that its copy works on it no more.
    Release(NodeId),
    /// The proof that no copy of this node is left: it is not heard.
    Proof(NodeId),
    /// A node that may be given it.
    Taker,
    /// An operator, who paused the service.
    Resume,
}

impl Wait {
    /// Who has to do something.
    pub const fn node(&self) -> Option<&NodeId> {
        match self {
            Self::Release(node) | Self::Proof(node) => Some(node),
            Self::Nothing | Self::Plan | Self::Taker | Self::Resume => None,
        }
    }
}

/// Who owns what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Each data node's.
    pub nodes: BTreeMap<NodeId, Share>,
    /// On these nobody works.
    pub unowned: Vec<PartitionId>,
}

/// What one node has of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its copy may work on these.
    pub owned: Vec<PartitionId>,
    /// Of them it was asked to release these.
    pub releasing: Vec<PartitionId>,
    /// So many it will own once all that shall move has.
    pub wanted: u32,
    /// It may be given more.
    pub gains: bool,
    /// Why it is as it is.
    pub why: String,
}

/// Where one partition stands; none if there is none of that number.
pub fn standing(
    view: &ControllerView<'_>,
    partition: PartitionId,
    now: Timestamp,
) -> Option<Standing> {
    let table = view.state.partitions.as_ref()?;
    let it = table.get(partition)?;
    let places = places(view, now);
    let shall = wanted(view, table, &places).into_iter().nth(usize::try_from(partition.0).ok()?)?;
    let owner = it.owner.as_ref();
    let state = match owner {
        None => State::Unowned,
        Some(owner) if is_lost(view, owner) => State::Lost,
        Some(_) if it.releasing.is_some() => State::Releasing,
        Some(_) => State::Owned,
    };
    let wait = wait(view, (partition, it), shall.as_ref(), &places);
    let is_elsewhere = |to: &NodeId| {
        !matches!(state, State::Owned | State::Releasing)
            || owner.is_some_and(|owner| owner.node != *to)
    };
    let to = shall.filter(is_elsewhere);
    let because = because(&wait, (owner, to.as_ref()), &places).number("epoch", it.epoch.0);
    Some(Standing {
        epoch: it.epoch,
        state,
        owner: owner.map(|owner| owner.node.clone()),
        to,
        wait,
        because,
    })
}

/// In the order in which the controller asks (`controller.rs`, `change`).
fn wait(
    view: &ControllerView<'_>,
    (id, it): (PartitionId, &Partition),
    shall: Option<&NodeId>,
    places: &BTreeMap<NodeId, Place>,
) -> Wait {
    if view.state.paused {
        return Wait::Resume;
    }
    let place = shall.and_then(|to| Some((to, places.get(to)?)));
    let lives = it.owner.as_ref().filter(|owner| !is_lost(view, owner));
    let Some(owner) = lives else {
        return if place.is_some_and(|(_, it)| it.gains) { Wait::Plan } else { Wait::Taker };
    };
    if place.is_some_and(|(to, _)| *to == owner.node) {
        return if it.releasing.is_some() { Wait::Plan } else { Wait::Nothing };
    }
    let is_released = it.releasing.is_some() && is_released(view, owner, (id, it.epoch));
    let answers = places.get(&owner.node).is_some_and(|it| it.answers);
    match place {
        Some((_, next)) if is_released && next.gains => Wait::Plan,
        _ if is_released => Wait::Taker,
        _ if !answers => Wait::Proof(owner.node.clone()),
        _ if it.releasing.is_some() => Wait::Release(owner.node.clone()),
        Some((_, next)) if next.gains => Wait::Plan,
        Some(_) | None => Wait::Taker,
    }
}

fn because(
    wait: &Wait,
    (owner, to): (Option<&Owner>, Option<&NodeId>),
    places: &BTreeMap<NodeId, Place>,
) -> Reason {
    let why = |node: &NodeId| places.get(node).map_or("it has no data", word);
    let shall = to.map_or_else(|| "nobody".to_string(), ToString::to_string);
    Reason::new(match wait {
        Wait::Nothing => match owner {
            Some(owner) => format!("{} owns it: {}", owner.node, why(&owner.node)),
            None => "nobody owns it".to_string(),
        },
        Wait::Plan => match (owner, to) {
            (_, Some(to)) => format!("{to} shall own it: the leader's next plan says so"),
            (Some(owner), None) => {
                format!("{} keeps it after all: the leader's next plan says so", owner.node)
            }
            (None, None) => "the leader's next plan gives it to somebody".to_string(),
        },
        Wait::Release(node) => {
            format!("{node} was asked to release it to {shall}, and has not said yet that it did")
        }
        Wait::Proof(node) => format!(
            "{node} owns it: {}; {shall} gets it, once it is proven that no copy of {node} is left",
            why(node)
        ),
        Wait::Taker => {
            let others = places.iter().filter(|(_, it)| !it.gains);
            let others = others.map(|(node, it)| format!("{node}: {}", word(it)));
            format!("no node may be given it; {}", others.collect::<Vec<_>>().join("; "))
        }
        Wait::Resume => "paused by an operator: no partition moves".to_string(),
    })
}

const fn word(it: &Place) -> &str {
    if it.draining { "is being emptied" } else { it.why.as_str() }
}

/// Who owns what, and will; none where the work is not divided.
pub fn shares(view: &ControllerView<'_>, now: Timestamp) -> Option<Shares> {
    let table = view.state.partitions.as_ref()?;
    let places = places(view, now);
    let share = |it: &Place| Share {
        owned: Vec::new(),
        releasing: Vec::new(),
        wanted: 0,
        gains: it.gains,
        why: word(it).to_string(),
    };
    let mut shares = Shares {
        nodes: places.iter().map(|(node, it)| (node.clone(), share(it))).collect(),
        unowned: Vec::new(),
    };
    for ((id, it), to) in table.iter().zip(wanted(view, table, &places)) {
        if let Some(share) = to.and_then(|to| shares.nodes.get_mut(&to)) {
            share.wanted += 1;
        }
        let Some(owner) = it.owner.as_ref().filter(|owner| !is_lost(view, owner)) else {
            shares.unowned.push(id);
            continue;
        };
        if let Some(share) = shares.nodes.get_mut(&owner.node) {
            share.owned.push(id);
            share.releasing.extend(it.releasing.is_some().then_some(id));
        }
    }
    Some(shares)
}
