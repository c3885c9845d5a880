//! Decides whether the times of a service fit together.
//! In: the written durations. Out: `Timing`, in which a lease outlasts suspicion and both outlast
//! several heartbeats.
//! Handles: H4 (the drift margin grows with the lease).

use super::checker::{Checker, Span};
use crate::config::problem::{Code, Say};
use crate::config::raw;
use crate::config::value::print_duration;
use std::ops::RangeInclusive;
use std::time::Duration;
use tandem_core::spec::Timing;

/// One lost packet, or one slow fsync, must not look like a dead node.
const HEARTBEATS_PER_VERDICT: u32 = 3;

/// Two clocks that count at most 0.05 % wrong each, and as much again.
const LEASE_PER_DRIFT_MARGIN: u32 = 500;

const fn milliseconds(least: u64, most: u64) -> RangeInclusive<Duration> {
    Duration::from_millis(least)..=Duration::from_millis(most)
}

pub(super) fn check(raw: &raw::Timing, service: &str, check: &mut Checker<'_, '_>) -> Timing {
    let default = Timing::default();
    let errors = check.problems.errors();
    let mut read = |name, written: &raw::Text, span| {
        check.duration(&format!("services.{service}.timing.{name}"), written.as_ref(), &span)
    };
    let timing = Timing {
        heartbeat: read(
            "heartbeat",
            &raw.heartbeat,
            Span {
                range: milliseconds(20, 5_000),
                default: default.heartbeat,
                because: "shorter ones cost more than they tell, longer ones tell too late",
            },
        ),
        suspicion: read(
            "suspicion",
            &raw.suspicion,
            Span {
                range: milliseconds(200, 60_000),
                default: default.suspicion,
                because: "a busy machine is silent for a tenth of a second now and then",
            },
        ),
        lease: read(
            "lease",
            &raw.lease,
            Span {
                range: milliseconds(300, 30_000),
                default: default.lease,
                because: "it is renewed by heartbeats, and an async failover waits for its end",
            },
        ),
        drift_margin: read(
            "drift_margin",
            &raw.drift_margin,
            Span {
                range: milliseconds(10, 10_000),
                default: default.drift_margin,
                because: "it covers what two clocks drift apart during one lease",
            },
        ),
        stable_after: read(
            "stable_after",
            &raw.stable_after,
            Span {
                range: milliseconds(1_000, 3_600_000),
                default: default.stable_after,
                because: "a primary that lasted less counts as flapping",
            },
        ),
        rejoin_patience: read(
            "rejoin_patience",
            &raw.rejoin_patience,
            Span {
                range: milliseconds(1_000, 3_600_000),
                default: default.rejoin_patience,
                because: "a standby needs a moment to connect before it is rewound or copied anew",
            },
        ),
    };
    // A value that could not be read was replaced by its default: nothing follows from that.
    if check.problems.errors() == errors {
        relations(&timing, service, check);
    }
    timing
}

/// One thing that must hold between two of the times.
struct Relation {
    holds: bool,
    /// The key to point at, and to change.
    key: &'static str,
    what: String,
    because: &'static str,
    instead: String,
}

fn relations(timing: &Timing, service: &str, check: &mut Checker<'_, '_>) {
    let Timing { heartbeat, suspicion, lease, drift_margin, .. } = *timing;
    let three = heartbeat * HEARTBEATS_PER_VERDICT;
    let p = print_duration;
    let relations = [
        Relation {
            holds: suspicion >= three,
            key: "suspicion",
            what: format!("suspicion ({}) is under three heartbeats ({})", p(suspicion), p(three)),
            because: "one or two heartbeats that come late would look like a dead node",
            instead: format!("suspicion = \"{}\" or more, or a shorter heartbeat", p(three)),
        },
        Relation {
            holds: lease >= three,
            key: "lease",
            what: format!("lease ({}) is under three heartbeats ({})", p(lease), p(three)),
            because: "heartbeats renew it: one or two late ones would stop a healthy primary",
            instead: format!("lease = \"{}\" or more, or a shorter heartbeat", p(three)),
        },
        Relation {
            holds: lease > suspicion,
            key: "lease",
            what: format!("lease ({}) is not longer than suspicion ({})", p(lease), p(suspicion)),
            because: "a primary would stop itself before anybody else had a reason to replace it",
            instead: format!(
                "lease = \"{}\", or a shorter suspicion",
                p(suspicion + heartbeat * 5)
            ),
        },
        Relation {
            holds: drift_margin * 2 <= lease,
            key: "drift_margin",
            what: format!(
                "drift_margin ({}) is over half the lease ({})",
                p(drift_margin),
                p(lease)
            ),
            because: "the margin is taken off the lease, and too little of it would be left",
            instead: format!("drift_margin = \"{}\" or less", p(lease / 2)),
        },
        Relation {
            holds: drift_margin * LEASE_PER_DRIFT_MARGIN >= lease,
            key: "drift_margin",
            what: format!(
                "drift_margin ({}) is under 1/{LEASE_PER_DRIFT_MARGIN} of the lease ({})",
                p(drift_margin),
                p(lease)
            ),
            because: "two clocks may drift further apart than that during one lease",
            instead: format!("drift_margin = \"{}\" or more", p(lease / LEASE_PER_DRIFT_MARGIN)),
        },
    ];
    for relation in relations.into_iter().filter(|relation| !relation.holds) {
        let place = check.place_of(&format!("services.{service}.timing.{}", relation.key));
        let what = format!("services.{service}.timing: {}", relation.what);
        let say = Say::new(what, relation.because, relation.instead);
        check.problems.error(Code::Timing, &place, say);
    }
}
