//! H37: the wait before the next failover doubles, has a cap, and yields to an operator.

use super::*;
use crate::cluster::state::Appointed;
use crate::pairing::{Clustering, Kind, Pairing, Replication};
use crate::spec::{Durability, Timing};
use alloc::string::String;

const NOW_MS: u64 = 1_700_000_000_000;

/// The wait after `count` primaries that lasted a second each, the last one appointed just now.
fn wait_after(count: u64, cause: Cause) -> Option<Duration> {
    let history = (0..count).map(|i| Appointed {
        term: Term(i + 1),
        primary: "a".into(),
        cause: if i + 1 == count { cause } else { Cause::PostmasterDied },
        reason: String::new(),
        at_unix_ms: NOW_MS - (count - 1 - i) * 1000,
        whole: true,
        active_unix_ms: None,
    });
    hold_off_in(history.collect(), NOW_MS)
}

fn hold_off_in(history: Vec<Appointed>, unix_ms: u64) -> Option<Duration> {
    let pairing =
        Pairing::new(Kind::Postgres, Clustering::ActivePassive, Replication::PrimaryReplica)
            .unwrap_or_else(|_| unreachable!());
    let durability = Durability::Quorum { acks: 1 };
    let state = ServiceState { history, ..ServiceState::default() };
    hold_off(&ControllerView {
        me: &"c".into(),
        service: &"orders".into(),
        spec: &ServiceSpec::new(pairing, durability, Timing::default()),
        nodes: &BTreeMap::new(),
        draining: &BTreeSet::new(),
        state: &state,
        services: &BTreeMap::new(),
        facts: &BTreeMap::new(),
        trails: &Trails::default(),
        unix_ms,
    })
}

#[test]
fn h37_each_primary_that_does_not_last_doubles_the_wait_up_to_a_cap() {
    let seconds = |count| wait_after(count, Cause::PostmasterDied).map(|wait| wait.as_secs());
    let waits: Vec<_> = (1..=13).map(seconds).collect();
    let expected = [0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 256, 256];
    let expected = expected.map(|s| if s == 0 { None } else { Some(s) });
    assert_eq!(waits, expected);
}

#[test]
fn h37_an_operator_starts_the_count_anew() {
    for cause in [Cause::Switchover, Cause::Forced] {
        assert_eq!(wait_after(12, cause), None, "{cause:?}");
    }
}

#[test]
fn h37_a_record_of_a_clock_that_is_ahead_holds_nobody_up() {
    let line = |term, at_unix_ms| Appointed {
        term: Term(term),
        primary: "a".into(),
        cause: Cause::PostmasterDied,
        reason: String::new(),
        at_unix_ms,
        whole: true,
        active_unix_ms: None,
    };
    let history: Vec<_> = (0..6).map(|i| line(i + 1, NOW_MS + 3_600_000 + i * 1000)).collect();
    assert_eq!(hold_off_in(history, NOW_MS), None);
}
