//! Decides whether endpoints can be where a file says.
//! In: the list as written. Out: `Upstream`s.
//! Not here: endpoints that are the copies of a command (`led.rs`).
//! Tested by: `config/tests/balanced.rs`.

use super::super::checker::{Checker, Limits};
use super::super::cluster;
use super::{PORT_EXAMPLE, Upstream, is_set, number};
use crate::config::problem::{Code, Say};
use crate::config::raw;
use crate::config::value::{self, HostPort};
use std::collections::BTreeMap;
use toml::Spanned;

const UPSTREAMS_MAX: usize = 1000;
const WEIGHT: Limits = Limits {
    range: 1..=1000,
    default: 1,
    example: None,
    because: "it says how much of the work an endpoint gets, relative to the others; to give it \
              none, write drain = true",
};

pub(super) fn check(raw: &raw::Balanced, check: &mut Checker<'_, '_>) -> Vec<Upstream> {
    let key = format!("services.{}.upstreams", raw.name.get_ref());
    if raw.upstreams.is_empty() {
        let because = "Tandem does not run these endpoints, so it must be told where they are";
        if check.is_written(&key) {
            let place = check.place_of(&key);
            let instead = format!("write at least one, such as [\"10.0.0.11:{PORT_EXAMPLE}\"]");
            let say = Say::new(format!("{key} has no endpoint"), because, instead);
            check.problems.error(Code::MissingKey, &place, say);
        } else {
            check.missing(&key, because, &format!("[\"10.0.0.11:{PORT_EXAMPLE}\"]"));
        }
    }
    if let Some(over) = raw.upstreams.get(UPSTREAMS_MAX) {
        let what = format!("{key} has more than {UPSTREAMS_MAX} endpoints");
        let because = "every node asks each of them all the time";
        let instead = "write a DNS name that stands for many of them, or several services";
        check.problems.error(Code::OutOfRange, &over.place, Say::new(what, because, instead));
        return Vec::new();
    }
    let mut seen: BTreeMap<HostPort, usize> = BTreeMap::new();
    let mut upstreams = Vec::new();
    for (at, raw) in raw.upstreams.iter().enumerate() {
        let key = format!("{key}.{}", at + 1);
        let Some(upstream) = upstream(raw, &key, check) else { continue };
        match seen.get(&upstream.address) {
            Some(first) => twice(&key, (&upstream.address, *first), raw, check),
            None => _ = seen.insert(upstream.address.clone(), at + 1),
        }
        upstreams.push(upstream);
    }
    upstreams
}

fn twice(
    key: &str,
    (address, first): (&HostPort, usize),
    raw: &raw::Upstream,
    check: &mut Checker<'_, '_>,
) {
    let place = raw.address.as_ref().map_or_else(|| raw.place.clone(), Spanned::span);
    let what = format!("{key}.address is {address} again");
    let because = format!("it is number {first} of the list already");
    let instead = "remove one of them; write a weight to give an endpoint more work";
    check.problems.error(Code::DuplicateAddress, &place, Say::new(what, because, instead));
}

fn upstream(raw: &raw::Upstream, key: &str, check: &mut Checker<'_, '_>) -> Option<Upstream> {
    let path = |name: &str| format!("{key}.{name}");
    if raw.address.is_none() {
        let example = format!("\"10.0.0.11:{PORT_EXAMPLE}\"");
        check.missing(&path("address"), "an endpoint is where its address says", &example);
    }
    let reader = |text: &str| value::host_port(text, PORT_EXAMPLE);
    let address = check.read(&path("address"), raw.address.as_ref(), reader);
    let weight = check.number(&path("weight"), raw.weight.as_ref(), &WEIGHT);
    let zone = check.read(&path("zone"), raw.zone.as_ref(), cluster::zone);
    Some(Upstream { address: address?, weight: number(weight), zone, drain: is_set(&raw.drain) })
}
