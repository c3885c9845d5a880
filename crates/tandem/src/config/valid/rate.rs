//! Decides whether the rates of a balanced service can be kept as written.
//! In: the written table. Out: `RateLimit`.
//! Not here: who is over its rate (`tandem_core`).
//! Tested by: `config/tests/rates.rs`.

use super::checker::{Checker, Limits};
use super::key;
use crate::config::problem::{Code, Say};
use crate::config::raw::{self, Switch};
use crate::config::value;
use std::time::Duration;
use tandem_core::clustering::load_balanced::key::Source;
use tandem_core::clustering::load_balanced::rate;

/// How much clients may ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// The rates.
    pub limits: rate::Limits,
    /// What tells clients apart; none: their addresses.
    pub key: Option<Source>,
}

const BURST: Limits = Limits {
    range: 1..=1_000_000,
    default: 0,
    example: None,
    because: "so many may come at once after a pause",
};

/// None if nobody is limited.
pub(super) fn check(service: &raw::Balanced, check: &mut Checker<'_, '_>) -> Option<RateLimit> {
    let path = format!("services.{}.rate_limit", service.name.get_ref());
    let Switch::On(written) = &service.rate_limit else { return None };
    let of = |name: &str| format!("{path}.{name}");
    let mut limit = |names: [&str; 2], rate: &raw::Text, burst: &raw::Number| {
        let read = check.read(&of(names[0]), rate.as_ref(), value::rate);
        let most = check.number(&of(names[1]), burst.as_ref(), &BURST);
        if let (Some(burst), None) = (burst, rate) {
            let say = Say::new(
                format!("{} has no effect", of(names[1])),
                format!("it belongs to {}, which is not written", names[0]),
                format!("add {} = \"100/s\", or remove it", names[0]),
            );
            check.problems.error(Code::Contradiction, &burst.span(), say);
        }
        let (count, per): (u32, Duration) = read?;
        // Nothing written: what a unit of time has may come at once.
        let burst = u32::try_from(most).ok().filter(|burst| *burst > 0).unwrap_or(count);
        Some(rate::Limit { count, per, burst })
    };
    let per_client = limit(["per_client", "burst"], &written.per_client, &written.burst);
    let total = limit(["total", "total_burst"], &written.total, &written.total_burst);
    let key = key::check(&of("key"), &written.key, check);
    if written.per_client.is_none() && written.total.is_none() {
        let say = Say::new(
            format!("{path} limits nothing"),
            "it says neither how much each client may have nor how much all of them",
            "add per_client = \"100/s\" or total = \"5000/s\", or remove it",
        );
        let place = check.place_of(&path);
        check.problems.error(Code::MissingKey, &place, say);
    } else if let (true, Some(_)) = (written.per_client.is_none(), &key) {
        let say = Say::new(
            format!("{} has no effect", of("key")),
            "it tells clients apart, and without per_client none of them has a rate",
            "add per_client = \"100/s\", or remove it",
        );
        let place = check.place_of(&of("key"));
        check.problems.error(Code::Contradiction, &place, say);
    }
    Some(RateLimit { limits: rate::Limits { per_client, total }, key })
}
