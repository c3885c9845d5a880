//! What is told of endpoints that come and go.

use super::super::watcher::endpoints::Endpoints;
use super::balanced::{endpoint, snapshot};
use crate::proxy::balancer::{EndpointSnapshot, Snapshot};
use crate::telemetry::events::{Draft, Event, EventLog};
use std::time::Duration;
use tandem_core::clustering::load_balanced::ejection::Condition;
use tandem_core::time::Timestamp;

const EJECTED: Condition = Condition::Ejected(Timestamp(1));

/// Recorded as the node would.
fn told(drafts: Vec<Draft>) -> Vec<Event> {
    let log = EventLog::new("a".into());
    for draft in drafts {
        log.record(draft);
    }
    log.since(0)
}

struct Story {
    endpoints: Endpoints,
    now: Timestamp,
}

impl Story {
    fn new() -> Self {
        Self { endpoints: Endpoints::default(), now: Timestamp(1_000_000_000) }
    }

    /// A second later: kinds and words.
    fn look(&mut self, of: Vec<EndpointSnapshot>) -> Vec<(&'static str, String)> {
        self.now = self.now.plus(Duration::from_secs(1));
        let drafts = self.endpoints.look(self.now, &[snapshot(of)]);
        told(drafts).into_iter().map(|it| (it.kind.name(), it.message)).collect()
    }

    fn kinds(&mut self, of: Vec<EndpointSnapshot>) -> Vec<&'static str> {
        self.look(of).into_iter().map(|(kind, _)| kind).collect()
    }
}

fn at(port: u16, condition: Condition) -> EndpointSnapshot {
    let address = ([10, 0, 0, 11], port).into();
    let upstream = format!("10.0.0.11:{port}");
    EndpointSnapshot { address, upstream, ..endpoint(condition) }
}

#[test]
fn an_endpoint_that_goes_and_comes_back_is_told_with_its_reason() {
    let mut story = Story::new();
    let both = |first| vec![at(1, first), at(2, Condition::Up)];
    assert_eq!(story.kinds(both(Condition::Up)), [""; 0], "nothing happened");
    let (kind, words) = story.look(both(EJECTED)).remove(0);
    assert_eq!(kind, "endpoint.ejected");
    assert!(words.starts_with("10.0.0.11:1: its work failed: Connection refused"), "{words}");
    assert_eq!(story.kinds(both(EJECTED)), [""; 0], "once");
    let back = story.look(both(Condition::Starting));
    assert_eq!(back, [("endpoint.returned", "10.0.0.11:1 works again".to_owned())]);
    assert_eq!(story.kinds(both(Condition::Up)), [""; 0]);
}

#[test]
fn an_endpoint_that_flaps_does_not_flood() {
    let mut story = Story::new();
    let mut words = Vec::new();
    for second in 0..600 {
        let condition = if second % 2 == 0 { EJECTED } else { Condition::Up };
        words.extend(story.look(vec![at(1, condition), at(2, Condition::Up)]));
    }
    assert!((8..=22).contains(&words.len()), "{} events in ten minutes", words.len());
    assert!(words.iter().any(|(_, words)| words.contains("times since this was told last")));
    // What it is in the end is told, however late.
    let mut last = Vec::new();
    for _ in 0..120 {
        last.extend(story.kinds(vec![at(1, Condition::Down), at(2, Condition::Up)]));
    }
    assert_eq!(last.last(), Some(&"endpoint.down"));
}

#[test]
fn many_that_go_together_are_one_event_and_a_door_without_any_is_told() {
    let mut story = Story::new();
    let all = |condition| (1..=300).map(|port| at(port, condition)).collect::<Vec<_>>();
    assert_eq!(story.kinds(all(Condition::Up)), [""; 0]);
    let down = story.look(all(Condition::Down));
    assert_eq!((down.len(), down[0].0), (1, "endpoint.down"));
    assert!(down[0].1.ends_with(" and 295 more do not answer their checks"), "{down:?}");
    assert_eq!(story.kinds(all(Condition::Down)), [""; 0], "a moment without anybody is none");
    assert_eq!(story.kinds(all(Condition::Down)), ["door.unserved"]);
    assert_eq!(story.kinds(all(Condition::Up)), ["endpoint.returned", "door.served"]);
}

#[test]
fn what_is_full_for_a_moment_is_not_told_and_what_is_drained_is_nobodys_news() {
    let mut story = Story::new();
    let full = || vec![EndpointSnapshot { is_full: true, ..at(1, Condition::Up) }];
    for _ in 0..10 {
        assert_eq!(story.kinds(full()), [""; 0]);
        assert_eq!(story.kinds(vec![at(1, Condition::Up)]), [""; 0]);
    }
    let told: Vec<_> = (0..5).flat_map(|_| story.kinds(full())).collect();
    assert_eq!(told, ["endpoint.full"]);
    for condition in [Condition::Draining, Condition::Unknown] {
        let mut story = Story::new();
        let of = || vec![at(1, condition), at(2, Condition::Up)];
        assert_eq!(story.kinds(of()), [""; 0]);
        let gone = vec![EndpointSnapshot { condition: None, ..at(1, condition) }];
        assert_eq!(story.kinds([gone, vec![at(2, Condition::Up)]].concat()), [""; 0]);
    }
    let mut story = Story::new();
    let of: Snapshot = snapshot(vec![at(1, EJECTED), at(2, Condition::Up)]);
    assert_eq!(told_kinds(&mut story, of.clone()), ["endpoint.ejected"]);
    let other = Snapshot { service: "other".into(), ..of };
    assert_eq!(told_kinds(&mut story, other.clone()), ["endpoint.ejected"], "each has its own");
    assert_eq!(told_kinds(&mut story, other), [""; 0]);
}

fn told_kinds(story: &mut Story, of: Snapshot) -> Vec<&'static str> {
    story.now = story.now.plus(Duration::from_secs(1));
    let drafts = story.endpoints.look(story.now, &[of]);
    told(drafts).into_iter().map(|it| it.kind.name()).collect()
}
