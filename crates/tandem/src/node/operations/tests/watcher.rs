use super::super::watcher::Watcher;
use super::*;
use crate::proxy::DoorCounters;
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::{Draft, EventLog};
use serde_json::Value;
use tandem_core::facts::Ballot;

/// Records as the node would, and reads back.
fn told(drafts: Vec<Draft>) -> Vec<(EventKind, BTreeMap<String, Value>)> {
    let log = EventLog::new("a".into());
    for draft in drafts {
        log.record(draft);
    }
    log.since(0).into_iter().map(|event| (event.kind, event.fields)).collect()
}

fn kinds(drafts: Vec<Draft>) -> Vec<EventKind> {
    told(drafts).into_iter().map(|(kind, _)| kind).collect()
}

fn watcher(seen: &Seen) -> Watcher {
    let mut watcher = Watcher::default();
    assert_eq!(kinds(watcher.look(seen.clone())), [], "nothing is told of what was before");
    assert_eq!(kinds(watcher.look(seen.clone())), [], "nothing changed");
    watcher
}

#[test]
fn what_of_the_configuration_waits_is_told_once_and_that_it_does_no_more() {
    let mut watcher = Watcher::default();
    let mut look = |waits: &[&str]| {
        let waits = waits.iter().map(|it| (*it).to_owned()).collect();
        told(watcher.look_at_waits(ConfigVersion(5), waits).into_iter().collect())
    };
    assert_eq!(look(&[]), []);
    let events = look(&["service web: cannot listen on 10.0.0.1:80"]);
    assert_eq!(events[0].0, EventKind::ConfigHeldUp);
    let waits = serde_json::json!(["service web: cannot listen on 10.0.0.1:80"]);
    assert_eq!((&events[0].1["waits"], &events[0].1["config_version"]), (&waits, &5.into()));
    assert_eq!(look(&["service web: cannot listen on 10.0.0.1:80"]), [], "tried again: no news");
    assert_eq!(look(&[])[0].0, EventKind::ConfigCarriedOut);
    assert_eq!(look(&[]), []);
}

#[test]
fn a_failover_is_told_from_its_cause_to_its_end() {
    let mut seen = healthy("b");
    let mut watcher = watcher(&seen);
    instance(&mut seen, "a", |own| {
        own.process = Process::Stopped;
        own.serving = None;
    });
    let events = told(watcher.look(seen.clone()));
    let kinds_of: Vec<_> = events.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds_of, [EventKind::InstanceExited, EventKind::FailoverStarted]);
    assert_eq!(events[1].1["cause"], "postmaster_died");

    seen.now = seen.now.plus(Duration::from_millis(100));
    instance(&mut seen, "a", |_| {});
    instance(&mut seen, "c", |own| {
        own.promised = Term(2);
        own.ballot = Some(Ballot { term: Term(2), position: None, held: None });
    });
    assert_eq!(kinds(watcher.look(seen.clone())), [EventKind::PromiseMade]);

    agree(&mut seen, appoint(2, "b", Cause::PostmasterDied, vec![rule("b", &["a", "c"])]));
    let appointed = kinds(watcher.look(seen.clone()));
    assert!(appointed.contains(&EventKind::PrimaryAppointed), "{appointed:?}");

    seen.now = seen.now.plus(Duration::from_millis(200));
    activate(&mut seen);
    instance(&mut seen, "b", |own| *own = primary(2, &["a", "c"]));
    let events = told(watcher.look(seen.clone()));
    let done = events.iter().find(|(kind, _)| *kind == EventKind::FailoverDone).unwrap();
    assert_eq!((&done.1["cause"], &done.1["took_ms"]), (&"postmaster_died".into(), &300.into()));
    for kind in [EventKind::PrimaryPromoted, EventKind::PrimaryActivated] {
        assert!(events.iter().any(|(it, _)| *it == kind), "{kind}");
    }
}

#[test]
fn a_failover_that_was_over_before_the_next_look_is_told_all_the_same() {
    let mut seen = healthy("b");
    let mut watcher = watcher(&seen);
    agree(&mut seen, appoint(2, "b", Cause::NodeDied, vec![rule("b", &["a", "c"])]));
    activate(&mut seen);
    let events = kinds(watcher.look(seen));
    for kind in [EventKind::FailoverStarted, EventKind::PrimaryAppointed, EventKind::FailoverDone] {
        assert!(events.contains(&kind), "{kind}: {events:?}");
    }
}

#[test]
fn a_planned_move_is_told_as_such() {
    let mut seen = healthy("c");
    let mut watcher = watcher(&seen);
    agree(&mut seen, ServiceCommand::RequestSwitchover { to: "b".into(), deadline_unix_ms: 9 });
    assert_eq!(kinds(watcher.look(seen.clone())), [EventKind::SwitchoverStarted]);
    let mut given_up = seen.clone();
    agree(&mut given_up, ServiceCommand::CancelSwitchover);
    let mut other = Watcher::default();
    other.look(seen.clone());
    assert_eq!(kinds(other.look(given_up)), [EventKind::SwitchoverFailed]);

    seen.now = seen.now.plus(Duration::from_millis(250));
    agree(&mut seen, appoint(2, "b", Cause::Switchover, vec![rule("b", &["a", "c"])]));
    activate(&mut seen);
    let events = told(watcher.look(seen));
    let done = events.iter().find(|(kind, _)| *kind == EventKind::SwitchoverDone).unwrap();
    assert_eq!(done.1["took_ms"], 250);
    assert!(!events.iter().any(|(kind, _)| *kind == EventKind::FailoverStarted));
}

#[test]
fn silence_death_and_a_cut_link_are_told_apart() {
    let mut seen = healthy("b");
    let mut silent = watcher(&seen);
    let mut gone = seen.clone();
    later(&mut gone, Duration::from_secs(2), &["c"]);
    let events = kinds(silent.look(gone.clone()));
    assert!(events.contains(&EventKind::NodeSilent), "{events:?}");
    assert!(!events.contains(&EventKind::LinkCut), "nobody hears it: {events:?}");
    later(&mut gone, Duration::from_millis(10), &[]);
    say(&mut gone, "b", |facts| _ = facts.links.insert("c".into(), up()));
    say(&mut gone, "a", |facts| _ = facts.links.insert("c".into(), up()));
    assert!(kinds(silent.look(gone)).contains(&EventKind::NodeReturned));

    let mut dead = watcher(&seen);
    let mut refused = seen.clone();
    say(&mut refused, "b", |facts| {
        facts.links.insert("c".into(), Link::Refused(Duration::ZERO));
    });
    assert_eq!(kinds(dead.look(refused)), [EventKind::NodeDied]);

    let mut cut = watcher(&seen);
    say(&mut seen, "a", |facts| {
        facts.links.insert("c".into(), Link::Silent(Duration::from_secs(2)));
    });
    assert_eq!(kinds(cut.look(seen.clone())), [EventKind::LinkCut]);
    assert_eq!(kinds(cut.look(seen.clone())), [], "told once");
    say(&mut seen, "a", |facts| _ = facts.links.insert("c".into(), up()));
    assert_eq!(kinds(cut.look(seen)), [EventKind::LinkHealed]);
}

#[test]
fn every_sickness_of_an_instance_has_its_event_and_its_end() {
    let second = Duration::from_secs(1);
    let cases = [
        (Health::Hung(second), EventKind::InstanceHung, EventKind::InstanceRecovered),
        (Health::DiskStuck(second), EventKind::DiskStuck, EventKind::DiskRecovered),
        (Health::DiskFull, EventKind::DiskFull, EventKind::DiskRecovered),
        (Health::ConnectionsUsedUp, EventKind::ConnectionsUsedUp, EventKind::InstanceRecovered),
    ];
    for (health, begins, ends) in cases {
        let mut seen = healthy("b");
        let mut watcher = watcher(&seen);
        instance(&mut seen, "a", |own| own.health = health);
        assert_eq!(kinds(watcher.look(seen.clone())), [begins]);
        instance(&mut seen, "a", |own| own.health = Health::Good);
        assert_eq!(kinds(watcher.look(seen)), [ends]);
    }
}

#[test]
fn rules_stalls_and_redundancy_are_told_with_their_durations() {
    let mut seen = healthy("a");
    let mut watcher = watcher(&seen);
    instance(&mut seen, "a", |own| own.replicas.clear());
    assert_eq!(kinds(watcher.look(seen.clone())), [], "a moment without standbys is no stall");
    seen.now = seen.now.plus(Duration::from_secs(3));
    for node in ["a", "b", "c"] {
        say(&mut seen, node, |_| {});
    }
    assert_eq!(kinds(watcher.look(seen.clone())), [EventKind::WritesStalled]);
    instance(&mut seen, "a", |own| *own = primary(1, &["b", "c"]));
    let events = told(watcher.look(seen.clone()));
    let kinds_of: Vec<_> = events.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds_of, [EventKind::WritesResumed, EventKind::RedundancyRestored]);
    assert_eq!(events[1].1["took_ms"], 3000);

    agree(&mut seen, ServiceCommand::ChangeRule { term: Term(1), rule: rule("a", &["b"]) });
    assert_eq!(kinds(watcher.look(seen.clone())), [EventKind::RuleChanged]);
    agree(&mut seen, ServiceCommand::SettleRule { term: Term(1), rule: rule("a", &["b"]) });
    let settled = kinds(watcher.look(seen));
    assert!(settled.contains(&EventKind::RuleSettled), "{settled:?}");
}

#[test]
fn the_way_back_is_told() {
    let mut seen = healthy("a");
    let mut watcher = watcher(&seen);
    instance(&mut seen, "b", |own| {
        own.data = Data::Copying { percent: None };
        own.process = Process::Stopped;
        own.stream = Stream::None;
        own.upstream = None;
    });
    let events = kinds(watcher.look(seen.clone()));
    assert!(events.contains(&EventKind::CloneStarted), "{events:?}");
    instance(&mut seen, "b", |own| *own = standby("a", 1));
    let events = kinds(watcher.look(seen));
    for kind in [EventKind::RejoinCloned, EventKind::RejoinFollowed, EventKind::InstanceStarted] {
        assert!(events.contains(&kind), "{kind}: {events:?}");
    }
}

#[test]
fn an_election_that_does_not_end_is_told_once() {
    let mut seen = healthy("b");
    let mut watcher = watcher(&seen);
    instance(&mut seen, "a", |own| own.process = Process::Stopped);
    watcher.look(seen.clone());
    later(&mut seen, Duration::from_secs(16), &[]);
    let events = kinds(watcher.look(seen.clone()));
    assert!(events.contains(&EventKind::FailoverFailed), "{events:?}");
    assert_eq!(kinds(watcher.look(seen)), []);
}

#[test]
fn an_election_that_ended_unseen_is_not_told_as_failed() {
    let mut seen = healthy("b");
    let mut watcher = watcher(&seen);
    instance(&mut seen, "a", |own| own.process = Process::Stopped);
    watcher.look(seen.clone());
    // Activated by a clock that is far behind: its end is older than this node's first look.
    agree(&mut seen, appoint(2, "b", Cause::PostmasterDied, vec![rule("b", &["c"])]));
    let mut state = tandem_core::cluster::state::ClusterState::clone(&seen.agreed);
    let service = state.services.get_mut(&orders()).unwrap();
    service.appointment.as_mut().unwrap().phase = Phase::Active;
    service.history.last_mut().unwrap().active_unix_ms = Some(1);
    seen.agreed = Arc::new(state);
    instance(&mut seen, "b", |own| *own = primary(2, &["c"]));
    watcher.look(seen.clone());
    later(&mut seen, Duration::from_secs(16), &[]);
    let events = kinds(watcher.look(seen));
    assert!(!events.contains(&EventKind::FailoverFailed), "{events:?}");
}

#[test]
fn a_node_that_joins_tells_nothing_of_the_log_it_reads() {
    let mut now = healthy("c");
    for (term, primary_of) in [(2, "b"), (3, "a")] {
        let other = if primary_of == "a" { "b" } else { "a" };
        let rules = vec![rule(primary_of, &[other, "c"])];
        agree(&mut now, appoint(term, primary_of, Cause::NodeSilent, rules));
        activate(&mut now);
    }
    instance(&mut now, "a", |own| *own = primary(3, &["b", "c"]));
    instance(&mut now, "b", |own| *own = standby("a", 3));
    let revision = now.agreed.services[&orders()].revision;
    for node in ["a", "b"] {
        instance(&mut now, node, |own| own.revision = revision);
    }
    // Of the others it hears the present, of the log it has read the first lines.
    let mut reading = healthy("c");
    agree(&mut reading, appoint(2, "b", Cause::NodeSilent, vec![rule("b", &["a", "c"])]));
    reading.facts.clone_from(&now.facts);
    let mut watcher = Watcher::default();
    let mut nothing = reading.clone();
    nothing.agreed = Arc::default();
    for seen in [nothing, reading.clone(), reading] {
        assert_eq!(kinds(watcher.look(seen)), []);
    }
    // Its clock is a minute past what the log tells of.
    now.unix_ms += 60_000;
    assert_eq!(kinds(watcher.look(now.clone())), []);
    later(&mut now, Duration::from_secs(16), &[]);
    assert_eq!(kinds(watcher.look(now)), []);
}

#[test]
fn doors_tell_when_they_hold_and_cut() {
    let mut watcher = Watcher::default();
    let mut look = |held, cut| {
        let counters = DoorCounters { held, cut, ..DoorCounters::default() };
        kinds(watcher.look_at_doors([(orders(), counters)].into()))
    };
    assert_eq!(look(0, 0), []);
    assert_eq!(look(3, 0), [EventKind::DoorHeld]);
    assert_eq!(look(5, 2), [EventKind::DoorCut]);
    assert_eq!(look(0, 2), [EventKind::DoorReleased]);
}
