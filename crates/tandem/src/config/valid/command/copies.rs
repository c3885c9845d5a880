//! Decides whether copies of a command can run side by side as written, and their door.
//! In: the written service. Out: `Copies`; none where one copy runs alone.
//! Not here: what is run (`command.rs`), where copies run (`tandem_core`).
//! Tested by: `config/tests/copies.rs`.

use super::super::balanced::{self, Basis};
use super::super::checker::{Checker, Limits, Shape, Span};
use super::super::{Balanced, Listen};
use crate::config::problem::{Code, Say};
use crate::config::{raw, reference};
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::Policy;
use tandem_core::pairing::{Clustering, Pairing};

/// How copies run side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Copies {
    /// On so many data nodes; none is on each.
    pub replicas: Option<u32>,
    /// For what a copy still serves to end before it is stopped by a plan.
    pub drain_max: Duration,
    /// The door, without endpoints; none without `listen`.
    pub door: Option<Balanced>,
}

/// Keys that say something about several copies, besides those of their door.
const KEYS: &[&str] = &["replicas", "door"];
/// Keys that every command with a front door has.
const FRONT: &[&str] = &["hold_max", "sessions_max"];
const DOORS: &[&str] = &["tcp", "http"];

const DRAIN: Span = Span {
    range: Duration::ZERO..=Duration::from_secs(3600),
    default: Duration::from_secs(30),
    because: "a restart of all copies waits for it once per node",
};

/// What every command has of a door.
#[derive(Clone, Copy)]
pub(in crate::config::valid) struct Front {
    pub listen: Option<Listen>,
    pub hold_max: Duration,
    pub sessions_max: usize,
}

pub(in crate::config::valid) fn check(
    raw: &raw::Command,
    (pairing, shape): (Option<Pairing>, Shape),
    front: Front,
    check: &mut Checker<'_, '_>,
) -> Option<Copies> {
    let pairing = pairing?;
    let path = |key: &str| format!("services.{}.{key}", raw.name.get_ref());
    if raw.listen.is_none() {
        doorless(raw, pairing, check);
    }
    if pairing.clustering() == Clustering::ActivePassive {
        alone(raw, check);
        return None;
    }
    let replicas = replicas(raw, pairing, shape, check);
    let drain_max = check.duration(&path("drain_max"), raw.drain_max.as_ref(), &DRAIN);
    if let Some(lease) = &raw.lease {
        let what = format!("{} has no effect", path("lease"));
        let because = "copies that run side by side need no lease: none excludes another";
        let say = Say::new(what, because, "remove it");
        check.problems.error(Code::Contradiction, &lease.span(), say);
    }
    word(raw, check);
    // A client's sessions stay where they are: nothing else makes every node active for itself.
    let usual = match pairing.clustering() {
        Clustering::ActiveActive => Policy::Hash,
        Clustering::ActivePassive | Clustering::LoadBalanced => Policy::PeakEwma,
    };
    let door = door(raw, (pairing, usual), front, check);
    Some(Copies { replicas, drain_max, door })
}

/// What sort of door it is.
pub(super) fn word(raw: &raw::Command, check: &mut Checker<'_, '_>) {
    let path = format!("services.{}.door", raw.name.get_ref());
    let word = |word: &str| DOORS.contains(&word).then_some(());
    if let Some(door) = &raw.door {
        let _ = check.word(&path, door, (DOORS, word));
    }
}

/// The door, with what every command has of one.
pub(super) fn door(
    raw: &raw::Command,
    (pairing, usual): (Pairing, Policy),
    Front { listen, hold_max, sessions_max }: Front,
    check: &mut Checker<'_, '_>,
) -> Option<Balanced> {
    let basis = Basis { pairing: Some(pairing), listen, usual };
    let door = balanced::door(&raw.balanced, basis, check)?;
    let is_written = check.is_written(&format!("services.{}.held_max", raw.name.get_ref()));
    let held_max = if is_written { door.held_max } else { sessions_max };
    Some(Balanced { held_max, hold_max, sessions_max, ..door })
}

/// One copy runs: what is written about several is a misunderstanding.
fn alone(raw: &raw::Command, check: &mut Checker<'_, '_>) {
    for key in KEYS.iter().copied().chain(reference::door_keys()) {
        let path = format!("services.{}.{key}", raw.name.get_ref());
        if !check.is_written(&path) {
            continue;
        }
        let say = Say::new(
            format!("{path} does not go with active-passive"),
            "active-passive means that one copy runs, and the door leads to it",
            "remove it, or write clustering = \"load-balanced\" to run several",
        );
        let place = check.place_of(&path);
        check.problems.error(Code::Contradiction, &place, say);
    }
}

/// Nobody connects: what is written about a door is a misunderstanding.
pub(super) fn doorless(raw: &raw::Command, pairing: Pairing, check: &mut Checker<'_, '_>) {
    let of_copies = pairing.clustering() != Clustering::ActivePassive;
    let door = reference::door_keys().chain(["door"]).filter(|_| of_copies);
    for key in FRONT.iter().copied().chain(door) {
        let path = format!("services.{}.{key}", raw.name.get_ref());
        if check.is_written(&path) {
            let what = format!("{path} has no effect");
            let because = "without `listen` there is no front door";
            let say = Say::new(what, because, "write listen, or remove it");
            let place = check.place_of(&path);
            check.problems.error(Code::Contradiction, &place, say);
        }
    }
}

fn replicas(
    raw: &raw::Command,
    pairing: Pairing,
    shape: Shape,
    check: &mut Checker<'_, '_>,
) -> Option<u32> {
    let path = format!("services.{}.replicas", raw.name.get_ref());
    let written = raw.replicas.as_ref()?;
    if pairing.clustering() == Clustering::ActiveActive {
        let say = Say::new(
            format!("{path} does not go with active-active"),
            "active-active means that a copy runs on every data node",
            "remove it, or write clustering = \"load-balanced\"",
        );
        check.problems.error(Code::Contradiction, &written.span(), say);
        return None;
    }
    let bounds = Limits {
        range: 1..=i64::try_from(shape.data.max(1)).unwrap_or(i64::MAX),
        default: 1,
        example: None,
        because: "each copy has a data node of its own",
    };
    u32::try_from(check.number(&path, Some(written), &bounds)).ok()
}
