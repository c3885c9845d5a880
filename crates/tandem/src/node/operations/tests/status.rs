use super::super::status::status as show;
use super::*;
use crate::api::status::{InstanceRole, InstanceState, InstanceStatus, NodeState, Phase, Status};
use crate::driver::explain::Explained;
use tandem_core::facts::Ballot;

fn status(seen: &Seen) -> Status {
    show(seen, &|_| None)
}

fn instance_of(seen: &Seen, node: &str) -> InstanceStatus {
    let all = status(seen).services.remove(0).instances;
    all.into_iter().find(|it| it.node.as_str() == node).unwrap()
}

#[test]
fn a_healthy_cluster_in_the_words_of_the_api() {
    let seen = healthy("b");
    let status = status(&seen);
    assert_eq!(status.cluster, "shop");
    assert_eq!(status.leader, Some("a".into()));
    assert!(status.nodes.iter().all(|node| node.state == NodeState::Up));
    let service = &status.services[0];
    assert_eq!((service.phase, service.term), (Phase::Active, Term(1)));
    assert_eq!(service.primary, Some("a".into()));
    assert_eq!(service.warnings, Vec::<String>::new());
    assert_eq!(service.endpoints[1].listen, "10.0.0.2:5432");
    assert_eq!(service.endpoints[1].read_listen, None);
    let [a, b, _] = &service.instances[..] else { panic!() };
    assert_eq!((a.role, a.state), (InstanceRole::Primary, InstanceState::Running));
    assert_eq!((a.lag_bytes, a.lag_s, a.in_commit_quorum), (Some(0), Some(0.0), true));
    assert_eq!(a.address, "10.0.0.1:6432");
    assert_eq!((b.role, b.state), (InstanceRole::Standby, InstanceState::Streaming));
    assert_eq!((b.lag_bytes, b.in_commit_quorum), (Some(200), true));
    assert_eq!((b.lsn, b.timeline), (Some(Lsn(900)), Some(TimelineId(2))));
    assert!(service.instances.iter().all(|it| it.reason.is_none()));
}

#[test]
fn a_door_for_reads_is_an_endpoint() {
    let text = THREE.replace("active-passive", "load-balanced");
    let text = text.replace("port = 6432", "read_listen = 5433\nport = 6432");
    let service = status(&cluster(&text, "b")).services.remove(0);
    assert_eq!(service.endpoints[1].read_listen.as_deref(), Some("10.0.0.2:5433"));
}

#[test]
fn a_node_that_is_not_heard_is_never_shown_as_running() {
    let mut seen = healthy("b");
    later(&mut seen, Duration::from_secs(4), &["a"]);
    assert_eq!(status(&seen).nodes[0].state, NodeState::Silent);
    let a = instance_of(&seen, "a");
    assert_eq!((a.state, a.lsn, a.lag_bytes), (InstanceState::Unknown, None, None));
    assert_eq!(a.reason.as_deref(), Some("a was last heard 4.0 s ago"));
    // What a replica lacks is not known either without a primary that is heard.
    assert_eq!(instance_of(&seen, "c").lag_bytes, None);
    let warnings = status(&seen).services.remove(0).warnings;
    assert!(warnings.iter().any(|it| it == "the primary a is not heard by b"), "{warnings:?}");
}

#[test]
fn nodes_are_told_apart() {
    let mut seen = healthy("b");
    say(&mut seen, "b", |facts| {
        facts.links.insert("c".into(), Link::Refused(Duration::from_secs(1)));
    });
    seen.leadership.voters.remove(&NodeId::from("a"));
    let mut agreed = ClusterState::clone(&seen.agreed);
    agreed.draining.insert("b".into());
    seen.agreed = Arc::new(agreed);
    let states: Vec<_> = status(&seen).nodes.iter().map(|node| node.state).collect();
    assert_eq!(states, [NodeState::Joining, NodeState::Draining, NodeState::Down]);
}

#[test]
fn every_way_of_not_being_well_has_its_word() {
    type Change = fn(&mut InstanceFacts);
    let cases: [(Change, InstanceState); 9] = [
        (|own| own.stream = Stream::None, InstanceState::Disconnected),
        (|own| own.process = Process::Starting, InstanceState::Starting),
        (|own| own.process = Process::Stopping, InstanceState::Stopping),
        (|own| own.process = Process::Stopped, InstanceState::Stopped),
        (|own| own.data = Data::Copying { percent: Some(40) }, InstanceState::Cloning),
        (|own| own.health = Health::Hung(Duration::from_secs(1)), InstanceState::Hung),
        (|own| own.data = Data::Quarantined { reason: "x".into() }, InstanceState::Quarantined),
        (
            |own| own.ballot = Some(Ballot { term: Term(2), position: None, held: None }),
            InstanceState::Promised,
        ),
        (
            |own| {
                own.data = Data::Empty;
                own.process = Process::Stopped;
            },
            InstanceState::Absent,
        ),
    ];
    for (change, state) in cases {
        let mut seen = healthy("a");
        instance(&mut seen, "c", change);
        assert_eq!(instance_of(&seen, "c").state, state);
    }
    let mut seen = healthy("a");
    instance(&mut seen, "c", |own| own.data = Data::Copying { percent: Some(40) });
    assert_eq!(instance_of(&seen, "c").reason.as_deref(), Some("40 % copied"));
}

#[test]
fn the_own_instance_says_why_by_its_last_plan() {
    let mut seen = healthy("c");
    instance(&mut seen, "c", |own| own.stream = Stream::None);
    let plan = Explained {
        unix_ms: 1,
        who: "instance",
        steps: Vec::new(),
        reason: "waits until a serves".into(),
        times: 1,
    };
    let status = show(&seen, &|_| Some(plan.clone()));
    let reason = status.services[0].instances[2].reason.clone();
    assert_eq!(reason.as_deref(), Some("waits until a serves"));
}

#[test]
fn phases_follow_what_is_agreed_and_seen() {
    let mut seen = healthy("b");
    agree(&mut seen, ServiceCommand::RequestSwitchover { to: "b".into(), deadline_unix_ms: 0 });
    assert_eq!(status(&seen).services[0].phase, Phase::Switchover);

    let mut seen = healthy("b");
    instance(&mut seen, "a", |own| own.process = Process::Stopped);
    assert_eq!(status(&seen).services[0].phase, Phase::Electing);

    let mut seen = healthy("b");
    agree(&mut seen, appoint(2, "b", Cause::PostmasterDied, vec![rule("b", &["a", "c"])]));
    assert_eq!(status(&seen).services[0].phase, Phase::Appointed);
}

#[test]
fn a_cluster_without_automatic_failover_says_so() {
    let two = THREE.replace("[nodes.c]\naddress = \"10.0.0.3:7400\"\n", "");
    assert!(!two.contains("nodes.c"), "{two}");
    let warnings = status(&cluster(&two, "a")).services.remove(0).warnings;
    let says = |words: &str, all: &[String]| all.iter().any(|it| it.contains(words));
    assert!(says("no automatic failover: two nodes", &warnings), "{warnings:?}");
    let mut seen = healthy("a");
    let mut agreed = ClusterState::clone(&seen.agreed);
    agreed.config_version = agreed.config_version.next();
    seen.agreed = Arc::new(agreed);
    let warnings = status(&seen).services.remove(0).warnings;
    assert!(says("wait on a, b, c: see tandem doctor", &warnings), "{warnings:?}");
}

#[test]
fn only_settled_rules_count_and_stalled_writes_are_said() {
    let mut seen = healthy("a");
    agree(&mut seen, ServiceCommand::ChangeRule { term: Term(1), rule: rule("a", &["b"]) });
    assert!(instance_of(&seen, "b").in_commit_quorum);
    assert!(!instance_of(&seen, "c").in_commit_quorum, "only one of two rules counts on it");
    instance(&mut seen, "a", |own| own.replicas.clear());
    let warnings = status(&seen).services.remove(0).warnings;
    assert_eq!(warnings, ["writes wait: each needs 1 of 1 standbys, and 0 stream"]);
    let awaited = |node| instance_of(&seen, node).awaited;
    assert_eq!(["a", "b", "c"].map(awaited).iter().filter(|it| **it).count(), 1);
}
