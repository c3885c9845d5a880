//! Decides what an acknowledged commit is worth, and whether these nodes can keep it.
//! In: the written keys and how many data nodes there are. Out: `Durability`.

use super::checker::{Checker, Limits, Shape, Span};
use crate::config::problem::{Code, Say};
use crate::config::raw;
use crate::config::value;
use std::time::Duration;
use tandem_core::spec::Durability;

const WORDS: &[&str] = &["quorum", "preferred", "async"];

/// Sixteen segments of WAL behind is a standby that has trouble; one megabyte is normal load.
const ASYNC_LAG_BYTES: u64 = 1 << 20;

/// What is heard of a primary comes with its heartbeats: less would refuse healthy standbys.
const ASYNC_DELAY: Span = Span {
    range: Duration::from_secs(1)..=Duration::from_secs(24 * 3600),
    default: Duration::from_secs(10),
    because: "it is measured by heartbeats, and what is older than a day is a case for an operator",
};

const ACKS: Limits = Limits {
    range: 1..=100,
    default: 1,
    example: None,
    because: "it counts standbys that confirm each commit",
};

/// With exactly two data nodes a quorum would stop writes whenever either of them is down.
pub(super) const fn default_word(data_nodes: usize) -> &'static str {
    if data_nodes == 2 { "preferred" } else { "quorum" }
}

pub(super) fn check(raw: &raw::Postgres, shape: Shape, check: &mut Checker<'_, '_>) -> Durability {
    let path = |key: &str| format!("services.{}.{key}", raw.name.get_ref());
    let read = |word: &str| WORDS.iter().find(|known| **known == word).copied();
    let word = raw
        .durability
        .as_ref()
        .and_then(|written| check.word(&path("durability"), written, (WORDS, read)))
        .unwrap_or_else(|| default_word(shape.data));
    let acks = check.number(&path("acks"), raw.acks.as_ref(), &ACKS);
    let acks = usize::try_from(acks).unwrap_or(1);
    let lag = check.read(&path("async_lag_max"), raw.async_lag_max.as_ref(), value::bytes);
    let delay = raw.async_delay_max.as_ref();
    let lag_max = check.duration(&path("async_delay_max"), delay, &ASYNC_DELAY);
    let is_async = word == "async";
    let useless = [
        ("acks", is_async && raw.acks.is_some()),
        ("async_lag_max", !is_async && lag.is_some()),
        ("async_delay_max", !is_async && delay.is_some()),
    ];
    for (key, _) in useless.into_iter().filter(|(_, useless)| *useless) {
        let what = format!("{} has no effect", path(key));
        let because = format!("the service's durability is \"{word}\"");
        let other = if is_async { "quorum" } else { "async" };
        let say = Say::new(what, because, format!("remove it, or write durability = \"{other}\""));
        let place = check.place_of(&path(key));
        check.problems.error(Code::Contradiction, &place, say);
    }
    if is_async {
        return Durability::Async { lag_bytes_max: lag.unwrap_or(ASYNC_LAG_BYTES), lag_max };
    }
    possible(raw, word, (acks, shape), check);
    match word {
        "quorum" => Durability::Quorum { acks },
        _ => Durability::Preferred { acks },
    }
}

/// Whether there are enough nodes for it.
fn possible(
    raw: &raw::Postgres,
    word: &str,
    (acks, shape): (usize, Shape),
    check: &mut Checker<'_, '_>,
) {
    let path = |key: &str| format!("services.{}.{key}", raw.name.get_ref());
    let data = shape.data;
    if data == 0 {
        return;
    }
    if word == "quorum" && data < 2 {
        let what = format!("durability = \"quorum\" cannot be kept for {}", raw.name.get_ref());
        let because = "a standby must confirm each commit, and the only data node has none";
        let instead = "add a data node, or write durability = \"preferred\": commits are then \
                       as safe as this node's disk";
        let place = check.place_of(&path("durability"));
        check.problems.error(Code::Durability, &place, Say::new(what, because, instead));
        return;
    }
    // `preferred` shrinks by itself; only a number that somebody wrote is a mistake there.
    let written = check.is_written(&path("acks"));
    if acks >= data && (word == "quorum" || written) {
        let standbys = data - 1;
        let what = format!("{} = {acks} is more than there are standbys", path("acks"));
        let because = format!("{data} data nodes are one primary and {standbys} standbys at most");
        let instead = match standbys {
            0 => "remove it, or add data nodes".to_owned(),
            _ => format!("write acks = {standbys} or less, or add data nodes"),
        };
        let place = check.place_of(&path("acks"));
        check.problems.error(Code::Durability, &place, Say::new(what, because, instead));
    } else if word == "quorum" && acks == data - 1 {
        let what = format!("{}: one lost standby makes writes wait", raw.name.get_ref());
        let because = format!("every commit waits for {acks} of {acks} standbys");
        let instead = "write durability = \"preferred\", fewer acks, or add a data node";
        let key = if written { "acks" } else { "durability" };
        let place = check.place_of(&path(key));
        check.problems.warning(Code::WritesWait, &place, Say::new(what, because, instead));
    }
}
