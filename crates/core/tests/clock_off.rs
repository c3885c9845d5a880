//! A controller whose clock is an hour off: nothing waits an hour, and nothing is moved for it.

#![allow(clippy::panic, reason = "a test's helpers fail the test")]

use std::collections::{BTreeMap, BTreeSet};
use tandem_core::cluster::command::ServiceCommand;
use tandem_core::cluster::state::{Appointed, Appointment, Cause, Forced, Phase, ServiceState};
use tandem_core::clustering::active_passive::controller::hold_off;
use tandem_core::clustering::active_passive::trail::Trails;
use tandem_core::clustering::active_passive::{ControllerView, Step, controller};
use tandem_core::ids::{NodeId, ServiceId, Term};
use tandem_core::pairing::{Clustering, Kind, Pairing, Replication};
use tandem_core::spec::{Durability, ServiceSpec, Timing};
use tandem_core::time::Timestamp;

const NOW: Timestamp = Timestamp(1_000_000_000);
const NOW_MS: u64 = 1_700_000_000_000;
const HOUR_MS: u64 = 3_600_000;

fn at<T>(state: &ServiceState, unix_ms: u64, see: impl Fn(&ControllerView<'_>) -> T) -> T {
    let pairing =
        Pairing::new(Kind::Postgres, Clustering::ActivePassive, Replication::PrimaryReplica);
    let Ok(pairing) = pairing else { panic!("the pair is refused") };
    let durability = Durability::Quorum { acks: 1 };
    let spec = ServiceSpec::new(pairing, durability, Timing::default());
    let (me, service) = (NodeId::from("a"), ServiceId::from("orders"));
    see(&ControllerView {
        trails: &Trails::default(),
        me: &me,
        service: &service,
        spec: &spec,
        nodes: &BTreeMap::new(),
        draining: &BTreeSet::new(),
        state,
        services: &BTreeMap::new(),
        facts: &BTreeMap::new(),
        unix_ms,
    })
}

fn appointed(term: u64, at_unix_ms: u64) -> Appointed {
    Appointed {
        term: Term(term),
        primary: "b".into(),
        cause: Cause::NodeDied,
        reason: String::new(),
        at_unix_ms,
        active_unix_ms: Some(at_unix_ms),
        whole: true,
    }
}

#[test]
fn a_demand_is_given_up_by_a_clock_that_is_an_hour_off_and_never_waited_for() {
    let mut state = ServiceState {
        appointment: Some(Appointment {
            term: Term(3),
            primary: "b".into(),
            phase: Phase::Active,
            rules: Vec::new(),
        }),
        ..ServiceState::default()
    };
    let deadline_unix_ms = NOW_MS + 10_000;
    state.forced = Some(Forced { to: None, accept_loss: false, deadline_unix_ms });
    let given_up = |plan: &controller::Plan| {
        plan.steps.contains(&Step::Propose(ServiceCommand::CancelFailover))
    };
    assert!(!at(&state, NOW_MS, |view| given_up(&controller::plan(view, NOW))));
    for off in [NOW_MS + HOUR_MS, NOW_MS - HOUR_MS] {
        assert!(at(&state, off, |view| given_up(&controller::plan(view, NOW))), "{off}");
    }
}

#[test]
fn the_wait_between_failovers_never_becomes_an_hour() {
    let history: Vec<Appointed> =
        (1..=6).map(|term| appointed(term, NOW_MS - 20_000 + term * 2_000)).collect();
    let state = ServiceState { history, ..ServiceState::default() };
    let wait = |unix_ms| at(&state, unix_ms, hold_off);
    assert!(wait(NOW_MS - 8_000).is_some(), "they flap");
    // Ahead: long ago. Behind: nobody knows how long ago, so nothing is waited for.
    assert_eq!((wait(NOW_MS + HOUR_MS), wait(NOW_MS - HOUR_MS)), (None, None));
}
