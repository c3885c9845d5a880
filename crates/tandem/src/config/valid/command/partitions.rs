//! Decides whether the work of a command can be divided as written.
//! In: the written service. Out: `Partitions`; none where it is not divided.
//! Not here: who owns what (`tandem_core::clustering::active_active`), copies without partitions
//! (`copies.rs`).
//! Tested by: `config/tests/copies/partitions.rs`.

use crate::config::problem::{Code, Say};
use crate::config::valid::checker::{Checker, Limits, Span};
use crate::config::{raw, reference};
use std::time::Duration;
use tandem_core::cluster::partitions::PARTITIONS_MAX;
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
}

const NO_DOOR: &str = "a front door to the owner of a key is not in this version";
/// Keys that make no sense where each part of the work has one owner.
const NOT_WITH: &[(&str, &str)] = &[
    ("replicas", "each data node runs a copy, and each partition has one owner"),
    ("drain_max", "a copy gives its partitions away one by one: release_max bounds that"),
    ("listen", NO_DOOR),
    ("door", NO_DOOR),
];

/// Keys that say something about partitions.
const ONLY_WITH: &[(&str, &str)] = &[
    ("release_max", "without partitions there is nothing to release"),
    ("on_partitions", "without partitions nothing of them changes"),
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
    let of_doors =
        reference::door_keys().chain(["hold_max", "sessions_max"]).map(|key| (key, NO_DOOR));
    for (key, because) in NOT_WITH.iter().copied().chain(of_doors) {
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
    })
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
