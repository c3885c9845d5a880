//! What operators are told of divided work: who owns what, why one partition is where it is, what
//! has moved.

use super::super::copies::divided;
use super::super::copies::partition;
use super::super::copies::rounds::Rounds;
use super::super::seen::Seen;
use super::*;
use crate::api::explain::{OnePartition, PartitionState};
use crate::api::metrics::Moves;
use crate::api::operations::PartitionOf;
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::{Draft, Event, EventLog};
use tandem_core::cluster::partitions::{Change, Owner, What};
use tandem_core::cluster::seats::{Earlier, SeatCommand};
use tandem_core::ids::{Epoch, PartitionId};
use tandem_core::spec::Seat;

const WORK: &str = r#"
[services.work]
kind = "command"
clustering = "active-active"
replication = "none"
command = ["/srv/worker"]
partitions = 12
listen = 8080
port = 9080
door = "http"
partition_key = { header = "X-Shop" }
"#;

fn work() -> ServiceId {
    "work".into()
}

fn apply(seen: &mut Seen, service: &ServiceId, command: ServiceCommand) {
    let mut state = ClusterState::clone(&seen.agreed);
    let expected = state.services[service].revision;
    state.apply(&Command::Service { service: service.clone(), expected, command });
    seen.agreed = Arc::new(state);
}

/// A node's copy runs, and all before it are gone.
fn sit(seen: &mut Seen, node: &str, term: u64) {
    let (term, seat) = (Term(term), Seat::name(&work(), &node.into()));
    let sit = SeatCommand {
        node: node.into(),
        term,
        earlier: Earlier::Gone,
        cause: Cause::Founded,
        reason: String::new(),
        at_unix_ms: UNIX_MS - 60_000,
    };
    apply(seen, &seat, ServiceCommand::Seat(sit));
    apply(seen, &seat, ServiceCommand::ConfirmRunning { term, at_unix_ms: UNIX_MS });
    say(seen, node, |facts| {
        let own = InstanceFacts {
            data: Data::Present,
            process: Process::Primary,
            promised: term,
            promoted: term,
            serving: Some(term),
            ..InstanceFacts::default()
        };
        facts.instances.insert(seat, own);
    });
}

/// Three nodes with a copy each, as `b` sees it; `owners` has a letter for each partition.
fn seen(owners: &str) -> Seen {
    let mut seen = cluster(&format!("{THREE}{WORK}"), "b");
    for node in ["a", "b", "c"] {
        sit(&mut seen, node, 1);
    }
    give(&mut seen, owners, 1);
    seen
}

fn change(seen: &mut Seen, what: impl Fn(PartitionId) -> Option<What>) {
    let table = seen.agreed.services[&work()].partitions.clone().unwrap();
    let change = |(partition, it): (PartitionId, &tandem_core::cluster::partitions::Partition)| {
        Some(Change { partition, epoch: it.epoch, what: what(partition)? })
    };
    let changes = table.iter().filter_map(change).collect();
    let command = ServiceCommand::Partition { changes, reason: String::new() };
    apply(seen, &work(), command);
}

/// Each of them to the node of its letter, in that sitting; `-`: none.
fn give(seen: &mut Seen, owners: &str, sitting: u64) {
    change(seen, |id| {
        let node = owners.get(id.0 as usize..=id.0 as usize).filter(|it| *it != "-")?;
        Some(What::Give(Owner { node: node.into(), sitting: Term(sitting) }))
    });
}

fn ask_back(seen: &mut Seen, ids: &[u32], to: &str) {
    change(seen, |id| ids.contains(&id.0).then(|| What::Release(to.into())));
}

fn of(seen: &Seen) -> ServiceSeen<'_> {
    seen.service(&work()).unwrap()
}

fn events(drafts: Vec<Draft>) -> Vec<Event> {
    let log = EventLog::new("a".into());
    for draft in drafts {
        log.record(draft);
    }
    log.since(0)
}

/// Kinds and words.
fn told(drafts: Vec<Draft>) -> Vec<(EventKind, String)> {
    events(drafts).into_iter().map(|event| (event.kind, event.message)).collect()
}

fn one(seen: &Seen, rounds: &Rounds, partition: u32) -> OnePartition {
    partition::one(of(seen), PartitionOf::Number(PartitionId(partition)), rounds).unwrap()
}

#[test]
fn status_says_which_partitions_a_node_owns_and_which_are_on_their_way() {
    let mut seen = seen("aaaabbbbccc-");
    ask_back(&mut seen, &[1, 2], "c");
    let told = divided::status(of(&seen)).unwrap();
    let ids = |ids: &[u32]| ids.iter().copied().map(PartitionId).collect::<Vec<_>>();
    assert_eq!((told.count, told.owned, &told.unowned_ids), (12, 11, &ids(&[11])));
    let a = &told.nodes[0];
    assert_eq!((a.owned, a.releasing), (4, 2));
    assert_eq!((&a.owned_ids, &a.releasing_ids), (&ids(&[0, 1, 2, 3]), &ids(&[1, 2])));
    let json = serde_json::to_value(a).unwrap();
    assert_eq!(json["owned_ids"], serde_json::json!([0, 1, 2, 3]));
    let warnings = divided::warnings(of(&seen));
    assert_eq!(warnings, ["nobody works on 1 of 12 partitions (11): tandem explain work"]);
    let shall: u32 = told.nodes.iter().map(|it| it.wanted).sum();
    assert_eq!(shall, 12, "somebody shall own the one that is nobody's");
}

#[test]
fn a_partition_says_for_how_long_it_is_released_and_who_is_waited_for() {
    let (mut seen, mut rounds) = (seen("aaaabbbbcccc"), Rounds::default());
    rounds.look(&seen);
    seen.agreed = {
        let mut state = ClusterState::clone(&seen.agreed);
        state.draining.insert("a".into());
        Arc::new(state)
    };
    ask_back(&mut seen, &[0], "c");
    rounds.look(&seen);
    later(&mut seen, Duration::from_millis(700), &[]);
    let it = one(&seen, &rounds, 0);
    assert_eq!((it.state, it.epoch), (PartitionState::Releasing, Epoch(1)));
    assert_eq!(
        (it.owner, it.to, it.waits_for.clone()),
        (Some("a".into()), Some("c".into()), Some("a".into()))
    );
    assert_eq!((it.releasing_ms, it.release_max_ms), (Some(700), 10_000));
    assert_eq!(it.because.text, "a was asked to release it to c, and has not said yet that it did");
    assert_eq!(it.route.as_deref(), Some("requests are held: it is being released"));
    let it = one(&seen, &rounds, 5);
    assert_eq!((it.state, it.waits_for, it.releasing_ms), (PartitionState::Owned, None, None));
    assert_eq!(it.route.as_deref(), Some("requests go to b"));
}

#[test]
fn a_key_is_told_its_partition_by_the_documented_hash() {
    let seen = seen("aaaabbbbcccc");
    let key = PartitionOf::Key("shop-17".to_owned());
    let it = partition::one(of(&seen), key, &Rounds::default()).unwrap();
    assert_eq!((it.partition, it.owner), (PartitionId(6), Some("b".into())));
    assert_eq!(
        (it.key.as_deref(), it.hash.as_deref()),
        (Some("shop-17"), Some("0x8675b487e9e6323a"))
    );
    let none = PartitionOf::Number(PartitionId(12));
    assert_eq!(partition::one(of(&seen), none, &Rounds::default()), None);
}

#[test]
fn a_round_of_moves_is_told_when_it_begins_and_when_it_ends() {
    let (mut seen, mut rounds) = (seen("aaaabbbbcccc"), Rounds::default());
    assert_eq!(told(rounds.look(&seen)), [], "what was before is not told");
    ask_back(&mut seen, &[0, 1, 3, 4], "c");
    let words = told(rounds.look(&seen));
    let asked = "4 partitions are to be released: a to c (0-1, 3), b to c (4)".to_owned();
    assert_eq!(words, [(EventKind::PartitionsAsked, asked)]);
    for id in [0, 1, 3] {
        later(&mut seen, Duration::from_millis(300), &[]);
        change(&mut seen, |it| {
            let owner = Owner { node: "c".into(), sitting: Term(1) };
            (it.0 == id).then_some(What::Give(owner))
        });
        assert_eq!(told(rounds.look(&seen)), [], "one by one, and told once");
    }
    change(&mut seen, |it| (it.0 == 4).then_some(What::Keep));
    let all = events(rounds.look(&seen));
    let words: Vec<_> = all.iter().map(|it| (it.kind, it.message.as_str())).collect();
    assert_eq!(
        words,
        [
            (EventKind::PartitionsMoved, "3 partitions have new owners: a to c (0-1, 3)"),
            (EventKind::PartitionsKept, "1 partitions stay where they are after all: b (4)"),
        ]
    );
    assert_eq!(all[0].fields["took_ms"], 900);
    let way = serde_json::json!([{"from": "a", "to": "c", "count": 3, "partitions": "0-1, 3"}]);
    assert_eq!((&all[0].fields["count"], &all[0].fields["moves"]), (&3.into(), &way));
    let moves = Moves { released: 3, ..Moves::default() };
    assert_eq!(rounds.moves(&work(), &"c".into()), moves);
    assert_eq!(told(rounds.look(&seen)), [], "it is over");
}

#[test]
fn what_lasts_is_told_as_far_as_it_has_come() {
    let (mut seen, mut rounds) = (seen("aaaabbbbcccc"), Rounds::default());
    rounds.look(&seen);
    ask_back(&mut seen, &[0, 1], "c");
    rounds.look(&seen);
    change(&mut seen, |it| {
        let owner = Owner { node: "c".into(), sitting: Term(1) };
        (it.0 == 0).then_some(What::Give(owner))
    });
    assert_eq!(told(rounds.look(&seen)), []);
    later(&mut seen, Duration::from_millis(1100), &[]);
    let words = told(rounds.look(&seen));
    assert_eq!(words.len(), 1, "nothing changes any more: {words:?}");
    assert_eq!(words[0].1, "1 partitions have new owners: a to c (0)");
    later(&mut seen, Duration::from_secs(60), &[]);
    assert_eq!(told(rounds.look(&seen)), [], "once");
}

#[test]
fn what_a_lost_copy_owned_is_told_apart() {
    let (mut seen, mut rounds) = (seen("aaaabbbbcccc"), Rounds::default());
    rounds.look(&seen);
    sit(&mut seen, "a", 2);
    assert_eq!(told(rounds.look(&seen)), [], "nothing has moved yet");
    give(&mut seen, "bbcc--------", 1);
    let words = told(rounds.look(&seen));
    let taken = "4 partitions have new owners, the copies of the old are gone: a to b (0-1), \
                 a to c (2-3)";
    assert_eq!(words, [(EventKind::PartitionsTaken, taken.to_owned())]);
    let moves = Moves { lost: 2, ..Moves::default() };
    assert_eq!(rounds.moves(&work(), &"b".into()), moves);
    let told = divided::metrics(of(&seen), &rounds, Some(1)).unwrap();
    assert_eq!((told.count, told.unowned, told.epochs, told.overdue_total), (12, 0, 16, Some(1)));
    let b = &told.nodes[1];
    assert_eq!((b.owned, b.releasing, b.wanted, b.moves), (6, 0, 4, moves));
}
