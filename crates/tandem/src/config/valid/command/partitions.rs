//! Decides whether the work of a command can be divided as written.
//! In: the written service. Out: `Partitions`; none where it is not divided.
//! Not here: who owns what (`tandem_core::clustering::active_active`), copies without partitions
//! (`copies.rs`).
//! Tested by: `config/tests/copies/partitions.rs`.

use super::copies::{self, Front};
use crate::config::problem::{Code, Say};
use crate::config::raw;
use crate::config::valid::checker::{Checker, Limits, Span};
use crate::config::valid::{Balanced, key};
use std::time::Duration;
use tandem_core::cluster::partitions::PARTITIONS_MAX;
use tandem_core::clustering::load_balanced::balance::Policy;
use tandem_core::clustering::load_balanced::ejection;
use tandem_core::clustering::load_balanced::key::Source;
use tandem_core::pairing::{Clustering, Pairing};

/// How the work of a command is divided.
#[derive(Clone, Debug, PartialEq)]
pub struct Partitions {
    /// Into so many parts.
    pub count: u32,
    /// For a copy to end its work on one.
    pub release_max: Duration,
    /// Run on a node whenever what it owns has changed; empty: nothing.
    pub on_partitions: Vec<String>,
    /// The door to the owners, without endpoints; none without `listen`.
    pub door: Option<KeyDoor>,
}

/// A door that leads to the owner of what a request or connection belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyDoor {
    /// What it belongs to is told by this.
    pub key: Source,
    /// The door as any other.
    pub door: Balanced,
}

const ONE_OWNER: &str = "each partition has one owner, so that the door has nothing to choose";
/// Keys that make no sense where each part of the work has one owner.
const NOT_WITH: &[(&str, &str)] = &[
    ("replicas", "each data node runs a copy, and each partition has one owner"),
    ("drain_max", "a copy gives its partitions away one by one: release_max bounds that"),
    ("balance", ONE_OWNER),
    ("sticky", ONE_OWNER),
    ("hash_key", "partition_key says what a request belongs to"),
    ("ejection", ONE_OWNER),
    ("slow_start", ONE_OWNER),
];

/// Keys that say something about partitions.
const ONLY_WITH: &[(&str, &str)] = &[
    ("release_max", "without partitions there is nothing to release"),
    ("on_partitions", "without partitions nothing of them changes"),
    ("partition_key", "without partitions any copy may serve any request"),
];

const COUNT: Limits = Limits {
    range: 1..=PARTITIONS_MAX as i64,
    default: 64,
    example: Some(64),
    because: "without any there is nothing to own, and every change of one is told to every node",
};
const RELEASE: Span = Span {
    range: Duration::from_millis(100)..=Duration::from_secs(3600),
    default: Duration::from_secs(10),
    because: "a partition that moves is worked on by nobody until it is released",
};

pub(super) fn check(
    raw: &raw::Command,
    (pairing, on_partitions): (Option<Pairing>, Vec<String>),
    front: Front,
    check: &mut Checker<'_, '_>,
) -> Option<Partitions> {
    let pairing = pairing?;
    let path = |key: &str| format!("services.{}.{key}", raw.name.get_ref());
    let Some(written) = &raw.partitions else {
        undivided(raw, check);
        return None;
    };
    let clustering = pairing.clustering();
    if clustering != Clustering::ActiveActive {
        let say = Say::new(
            format!("{} does not go with {clustering}", path("partitions")),
            "work is divided among copies that are all active",
            "write clustering = \"active-active\", or remove partitions",
        );
        check.problems.error(Code::Contradiction, &written.span(), say);
        return None;
    }
    for (key, because) in NOT_WITH.iter().copied() {
        if check.is_written(&path(key)) {
            let what = format!("{} does not go with partitions", path(key));
            let say = Say::new(what, because, format!("remove {key}"));
            let place = check.place_of(&path(key));
            check.problems.error(Code::Contradiction, &place, say);
        }
    }
    let count = check.number(&path("partitions"), Some(written), &COUNT);
    Some(Partitions {
        count: u32::try_from(count).unwrap_or(1),
        release_max: check.duration(&path("release_max"), raw.release_max.as_ref(), &RELEASE),
        on_partitions,
        door: door(raw, (pairing, front), check),
    })
}

/// The door to the owners.
fn door(
    raw: &raw::Command,
    (pairing, front): (Pairing, Front),
    check: &mut Checker<'_, '_>,
) -> Option<KeyDoor> {
    let path = format!("services.{}.partition_key", raw.name.get_ref());
    copies::word(raw, check);
    if raw.listen.is_none() {
        copies::doorless(raw, pairing, check);
        if check.is_written(&path) {
            let what = format!("{path} has no effect");
            let because = "without `listen` there is no front door";
            let say = Say::new(what, because, "write listen, or remove it");
            let place = check.place_of(&path);
            check.problems.error(Code::Contradiction, &place, say);
        }
        return None;
    }
    let written = key::check(&path, &raw.partition_key, check);
    let is_http = raw.balanced.http.is_some();
    let key = match (is_http, written) {
        (false, Some(Source::Header(_) | Source::Cookie(_) | Source::PathSegment(_))) => {
            let say = Say::new(
                format!("{path} does not go with door = \"tcp\""),
                "a connection shows nothing of what it carries but where it comes from",
                "write door = \"http\", or partition_key = \"source\"",
            );
            let place = check.place_of(&path);
            check.problems.error(Code::Contradiction, &place, say);
            return None;
        }
        (true, None) if !check.is_written(&path) => {
            let because = "only its owner knows what of a request says to which partition it \
                           belongs";
            check.missing(&path, because, "{ header = \"X-Shop\" }");
            return None;
        }
        (_, key) => key.unwrap_or(Source::Address),
    };
    // Whoever owns it gets it, however its requests end.
    let never =
        ejection::Limits { failures: 0, success_percent_min: 0, ..ejection::Limits::default() };
    let door = copies::door(raw, (pairing, Policy::RoundRobin), front, check)?;
    Some(KeyDoor { key, door: Balanced { limits: never, ejects: false, ..door } })
}

/// What is written about parts that there are not is a misunderstanding.
fn undivided(raw: &raw::Command, check: &mut Checker<'_, '_>) {
    for (key, because) in ONLY_WITH {
        let path = format!("services.{}.{key}", raw.name.get_ref());
        if check.is_written(&path) {
            let what = format!("{path} has no effect");
            let say = Say::new(what, *because, "write partitions = 64, or remove it");
            let place = check.place_of(&path);
            check.problems.error(Code::Contradiction, &place, say);
        }
    }
}
