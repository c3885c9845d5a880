//! The PostgreSQL adapter against real servers: one story per test.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test code outside of test functions")]

mod postgres_adoption;
mod postgres_audit;
mod postgres_cluster;
mod postgres_daemon;
mod postgres_lag;
mod postgres_settings;

use nix::sys::signal::Signal;
use postgres_cluster::{Node, SHORT, nodes, rule, timed};
use std::collections::BTreeMap;
use std::time::Duration;
use tandem::service::postgres::sql::sessions::Ended;
use tandem::service::postgres::{
    Ballast, ControlState, Error, Rewind, RuleState, Sentinel, StateFile, Why,
};
use tandem_core::facts::Data;
use tandem_core::ids::{NodeId, Term, TimelineId};
use tandem_core::lsn::Lsn;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Commits that wait for standbys.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";

async fn found(node: &mut Node) {
    timed("initdb", node.postgres.found()).await.unwrap();
    timed("start", node.start_following(None)).await;
    timed("promote the first", node.postgres.promote(SHORT)).await.unwrap();
    timed("roles", node.postgres.ensure_roles(SHORT)).await.unwrap();
}

async fn clone(node: &mut Node, source: &str) {
    let (progress, seen) = watch::channel(None);
    let token = CancellationToken::new();
    timed("clone", node.postgres.clone_from(&source.into(), progress, token)).await.unwrap();
    assert_eq!(*seen.borrow(), Some(100));
    timed("start a standby", node.start_following(Some(source))).await;
    node.until("it streams", |o| o.receiver.as_ref().is_some_and(|r| r.streaming)).await;
}

#[tokio::test]
async fn a_first_primary() {
    let (_dir, mut nodes) = nodes(&["a", "b"]).await;
    let a = &mut nodes[0];
    let alone = rule("a", &[], 0);
    assert_eq!(a.postgres.data().await.unwrap(), Data::Empty);
    assert!(matches!(a.postgres.prepare_start(None).await, Err(Error::NoData { .. })));
    let not_there = a.postgres.observer().observe(SHORT).await;
    assert!(matches!(not_there, Err(Error::NotRunning)), "{not_there:?}");
    found(a).await;
    assert!(matches!(a.postgres.found().await, Err(Error::StillRunning { .. })));
    assert_eq!(a.postgres.data().await.unwrap(), Data::Present);
    a.postgres.ensure_roles(SHORT).await.unwrap();
    // H7: whoever promotes what was started here, its commits wait until somebody lets them pass.
    let mut client = a.psql("CREATE TABLE early ()").spawn().unwrap();
    a.until_sql(WAITING, "1");
    timed("record the term alone", a.postgres.record_term(Term(1), &alone, SHORT)).await.unwrap();
    assert!(client.try_wait().unwrap().is_none());
    timed("let it pass", a.postgres.let_confirm(&alone, SHORT)).await.unwrap();
    assert!(client.wait().unwrap().success());
    a.postgres.record_term(Term(1), &alone, SHORT).await.unwrap();
    let mut observer = a.postgres.observer();
    timed("first look", observer.observe(SHORT)).await.unwrap();
    let seen = timed("next look", observer.observe(SHORT)).await.unwrap();
    assert!(!seen.in_recovery && seen.data_term == Term(1) && seen.replicas.is_empty());
    assert_eq!(seen.timeline, TimelineId(2), "promoted once");
    a.sql("INSERT INTO tandem.history VALUES (2, 'somebody', 9, '0/1')");
    let taken = a.postgres.record_term(Term(2), &alone, SHORT).await;
    assert!(matches!(taken, Err(Error::TermTaken { .. })), "{taken:?}");
    probes(a).await;
    overrides(a).await;
    postgres_audit::finds_what_a_failover_loses(a).await;
    slots_of_members(a).await;
    stopped_cleanly(a).await;
}

async fn probes(a: &Node) {
    timed("probe of the disk", a.postgres.probe_disk(SHORT)).await.unwrap();
    assert!(a.postgres.free_space().await.unwrap().free_bytes > 0);
    timed("new connection", a.postgres.probe_new_connection(SHORT)).await.unwrap();
    // H29: a hung postmaster is told apart from a dead one, and an old connection hides it.
    let mut observer = a.postgres.observer();
    observer.observe(SHORT).await.unwrap();
    a.signal(Signal::SIGSTOP);
    let hung = a.postgres.probe_new_connection(Duration::from_millis(300)).await;
    let old = observer.observe(SHORT).await;
    a.signal(Signal::SIGCONT);
    assert!(matches!(hung, Err(Error::Timeout { .. })), "{hung:?}");
    assert!(old.is_ok(), "{old:?}");
}

async fn overrides(a: &Node) {
    // H10, H13: what ALTER SYSTEM says about our settings does not survive us.
    a.sql("ALTER SYSTEM SET synchronous_standby_names = '*'");
    a.sql("ALTER SYSTEM SET work_mem = '5MB'");
    let state = timed("rule of nobody", a.postgres.apply_rule(&rule("a", &[], 0), SHORT)).await;
    assert_eq!(state.unwrap(), RuleState::Proven);
    assert_eq!(a.sql("SHOW synchronous_standby_names"), "");
    assert_eq!(a.sql("SHOW work_mem"), "5MB");
    let short = Duration::from_millis(400);
    // H7: a row that nobody confirmed is seen, and proves nothing; the repetition waits as well.
    assert_eq!(a.postgres.hold_commits(SHORT).await.unwrap(), RuleState::Proven);
    for _ in 0..2 {
        let recorded = a.postgres.record_term(Term(3), &rule("a", &["b"], 1), short).await;
        assert!(matches!(recorded, Err(Error::Timeout { .. })), "{recorded:?}");
        assert_eq!(a.sql("SELECT max(term) FROM tandem.history"), "3");
    }
    // H8: with nobody there to confirm, a rule is not proven, and says what is missing.
    let state = a.postgres.apply_rule(&rule("a", &["b"], 1), short).await.unwrap();
    let why = Why::TooFew { confirmed: 0, acks: 1 };
    assert_eq!(state, RuleState::Pending { why });
    let state = a.postgres.apply_rule(&rule("a", &[], 0), SHORT).await.unwrap();
    assert_eq!(state, RuleState::Proven);
}

async fn slots_of_members(a: &Node) {
    let others = BTreeMap::from([("b".into(), None), ("x-1".into(), None), ("a".into(), None)]);
    let report = timed("slots", a.postgres.ensure_slots(&others, SHORT)).await.unwrap();
    assert_eq!(report.created.len(), 2, "{report:?}");
    let fewer = BTreeMap::from([("b".into(), Some(Lsn(1)))]);
    let report = a.postgres.ensure_slots(&fewer, SHORT).await.unwrap();
    assert_eq!((report.created.len(), report.dropped.len()), (0, 1), "{report:?}");
}

async fn stopped_cleanly(a: &mut Node) {
    let ended = a.postgres.end_sessions(&"b".into(), SHORT).await.unwrap();
    assert_eq!(ended, Ended::default());
    // A kept connection that an operator ends is not a server that is down.
    let mut observer = a.postgres.observer();
    observer.observe(SHORT).await.unwrap();
    a.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tandem'",
    );
    observer.observe(SHORT).await.unwrap();
    a.stop(Signal::SIGINT);
    let stopped = timed("inspect", a.postgres.inspect_stopped()).await.unwrap();
    assert_eq!((stopped.state, stopped.checksums), (ControlState::ShutDown, true));
    assert!(stopped.end > stopped.checkpoint && stopped.forks.len() == 1, "{stopped:?}");
    // H5: whatever starts what was a primary, as it lies there, it is a standby.
    a.run_unprepared();
    let seen = a.until("it is a standby", |o| o.in_recovery).await;
    assert_eq!((seen.flushed, seen.data_term), (stopped.end, Term(3)));
    assert!(matches!(a.postgres.ensure_roles(SHORT).await, Err(Error::Role { .. })));
}

#[tokio::test]
async fn failover_and_rejoin() {
    let (_dir, mut nodes) = nodes(&["a", "b", "c-1"]).await;
    let [a, b, c] = nodes.as_mut_slice() else { panic!("three") };
    found(a).await;
    interrupted_clone(b).await;
    clone(b, "a").await;
    clone(c, "a").await;
    quorum(a, b, c).await;
    failover(a, b, c).await;
    timed("checkpoint", b.postgres.checkpoint(SHORT)).await.unwrap();
    let seen = b.until("it shows the checkpoint", |o| o.checkpoint_timeline == o.timeline).await;
    assert_eq!(seen.timeline, TimelineId(3));
    rejoin(a, b).await;
    switchover(a, b, c).await;
}

/// H19: half a clone never starts.
async fn interrupted_clone(b: &mut Node) {
    let a = NodeId::from("a");
    let (progress, _seen) = watch::channel(None);
    let token = CancellationToken::new();
    token.cancel();
    let cut = b.postgres.clone_from(&a, progress.clone(), token).await;
    assert!(matches!(cut, Err(Error::Cancelled)), "{cut:?}");
    assert_eq!(b.postgres.data().await.unwrap(), Data::Mixed);
    let refused = b.postgres.prepare_start(Some(&a)).await;
    assert!(matches!(refused, Err(Error::MixedData(Sentinel::Cloning))), "{refused:?}");
    // A promise made meanwhile keeps the sentinel.
    let state = b.postgres.change_state(|state| state.promised = Term(1)).await.unwrap();
    assert_eq!(state.sentinel, Some(Sentinel::Cloning));
    // A human's decision outlives everything else, until a human has it copied again.
    let why = |state: &mut StateFile| state.quarantined = Some("it says why".into());
    b.postgres.change_state(why).await.unwrap();
    let reason = String::from("it says why");
    assert_eq!(b.postgres.data().await.unwrap(), Data::Quarantined { reason });
    let refused = b.postgres.clone_from(&a, progress.clone(), CancellationToken::new()).await;
    assert!(matches!(refused, Err(Error::Quarantined { .. })), "{refused:?}");
    b.postgres.begin_state(|state| state.quarantined = None).await.unwrap();
    assert_eq!(b.postgres.data().await.unwrap(), Data::Mixed);
    let nobody = NodeId::from("c-1");
    let away = b.postgres.clone_from(&nobody, progress, CancellationToken::new()).await;
    assert!(matches!(away, Err(Error::SourceUnavailable { .. })), "{away:?}");
}

async fn quorum(a: &Node, b: &Node, c: &Node) {
    let state = a.postgres.apply_rule(&rule("a", &["b", "c-1"], 2), SHORT).await.unwrap();
    assert_eq!(state, RuleState::Proven);
    let any = rule("a", &["b", "c-1"], 1);
    let state = timed("rule", a.postgres.apply_rule(&any, SHORT)).await.unwrap();
    assert_eq!(state, RuleState::Proven);
    timed("record the term", a.postgres.record_term(Term(1), &any, SHORT)).await.unwrap();
    a.sql("CREATE TABLE t AS SELECT generate_series(1, 10000) AS i");
    let seen = a.until("both stream", |o| o.replicas.values().filter(|r| r.streaming).count() == 2);
    let seen = timed("look with standbys", seen).await;
    assert_eq!(seen.replicas.keys().map(NodeId::as_str).collect::<Vec<_>>(), ["b", "c-1"]);
    // H24, H25: slots on a standby are made and moved along.
    let others = |lsn| BTreeMap::from([("a".into(), lsn), ("c-1".into(), lsn)]);
    b.postgres.ensure_slots(&others(None), SHORT).await.unwrap();
    let restart = "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'tandem_a'";
    let before: Lsn = b.sql(restart).parse().unwrap();
    a.sql("INSERT INTO t SELECT generate_series(1, 1000)");
    let seen = c.until("it replayed more", |o| o.replayed > before).await;
    b.until("it replayed as much", |o| o.replayed >= seen.replayed).await;
    b.postgres.ensure_slots(&others(Some(seen.replayed)), SHORT).await.unwrap();
    assert!(b.sql(restart).parse::<Lsn>().unwrap() > before);
}

async fn failover(a: &mut Node, b: &Node, c: &Node) {
    // H15: while the primary is alive and writes, a promised standby gets nothing more.
    let at_c = timed("stop the receiver", c.postgres.stop_receiver(SHORT)).await.unwrap();
    a.sql("INSERT INTO t SELECT generate_series(1, 1000)");
    let seen = c.until("it answers", |_| true).await;
    assert_eq!((seen.flushed, seen.receiver), (at_c.flushed, None));
    a.stop(Signal::SIGKILL);
    let at_b = timed("stop the receiver of a dead primary", b.postgres.stop_receiver(SHORT)).await;
    let at_b = at_b.unwrap();
    assert!(at_b.flushed > at_c.flushed && at_b.replayed <= at_b.flushed, "{at_b:?} {at_c:?}");
    timed("stop it again", b.postgres.stop_receiver(SHORT)).await.unwrap();
    promote_under_sessions(b, c).await;
    c.until("it follows", |o| o.data_term == Term(2) && o.timeline == TimelineId(3)).await;
    assert_eq!(c.sql("SELECT count(*) FROM t"), "12001");
}

/// H7: a session that was open on the standby survives its promotion. Its commit is confirmed
/// before the term's row is there, and acknowledged only after it.
async fn promote_under_sessions(b: &Node, c: &Node) {
    let open = "DO 'BEGIN WHILE pg_is_in_recovery() LOOP PERFORM pg_sleep(0.002); END LOOP; END'";
    let mut client = b.psql(open);
    let mut client = client.args(["-c", "INSERT INTO t VALUES (-1)"]).spawn().unwrap();
    b.until_sql("SELECT count(*) FROM pg_stat_activity WHERE query ~ '^DO'", "1");
    let state = timed("hold commits before the promotion", b.postgres.hold_commits(SHORT)).await;
    assert_eq!(state.unwrap(), RuleState::Proven);
    let timeline = timed("promote", b.postgres.promote(SHORT)).await.unwrap();
    assert_eq!(timeline, TimelineId(3), "what the others compare with is of the new timeline");
    let upstream = NodeId::from("b");
    timed("follow", c.postgres.follow(&upstream, SHORT)).await.unwrap();
    b.until_sql(WAITING, "1");
    let written = b.until("it answers", |_| true).await.flushed;
    let id = NodeId::from("c-1");
    b.until("it is confirmed", |o| o.replicas.get(&id).is_some_and(|c| c.flushed >= written)).await;
    assert!(client.try_wait().unwrap().is_none(), "acknowledged before the row was there");
    let next = rule("b", &["a", "c-1"], 1);
    timed("record the term after promotion", b.postgres.record_term(Term(2), &next, SHORT))
        .await
        .unwrap();
    assert!(client.try_wait().unwrap().is_none(), "acknowledged before the rule was");
    let state = timed("the first rule", b.postgres.let_confirm(&next, SHORT)).await.unwrap();
    assert_eq!(state, RuleState::Proven);
    timed("until the commit is acknowledged", async { client.wait().unwrap() }).await;
    assert_eq!(b.sql("SHOW synchronous_standby_names"), b.postgres.sync_names(&next));
}

/// H18, H20, H21: the old primary comes back as a standby, without a clone, and is itself.
async fn rejoin(a: &mut Node, b: &Node) {
    let stopped = a.postgres.inspect_stopped().await.unwrap();
    assert_eq!(stopped.state, ControlState::InProduction);
    let source = NodeId::from("b");
    // H20: the files of each node are its own; a release of its ballast stays one (H27).
    own_line(a, "work_mem = '7MB'");
    own_line(b, "work_mem = '9MB'");
    assert_eq!(b.postgres.keep_ballast().await.unwrap(), Ballast::Whole);
    let rewound = timed("rewind", a.postgres.rewind_from(&source, CancellationToken::new())).await;
    let log = a.log();
    assert_eq!(rewound.unwrap_or_else(|error| panic!("{error}: {error:?}{log}")), Rewind::Rewound);
    assert_eq!(a.postgres.load_state().await.unwrap().sentinel, None);
    timed("start after the rewind", a.start_following(Some("b"))).await;
    let streams = a.until("it streams", |o| {
        o.receiver.as_ref().is_some_and(|r| r.streaming) && o.data_term == Term(2)
    });
    timed("stream after the rewind", streams).await;
    assert_eq!(a.sql("SELECT count(*) FROM pg_replication_slots"), "0");
    assert_eq!(a.sql("SHOW work_mem"), "7MB");
    let ballast = a.postgres.data_dir().join("base/pgsql_tmp_tandem_ballast");
    assert!(!ballast.exists(), "room is not copied");
    let name = a.sql("SHOW cluster_name");
    assert_eq!((name.as_str(), a.sql("SHOW port").parse()), ("orders/a", Ok(port(a))));
    assert_ne!(port(a), port(b));
}

fn own_line(node: &Node, line: &str) {
    let path = node.postgres.data_dir().join("postgresql.conf");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, format!("{line}\n{text}")).unwrap();
}

fn port(node: &Node) -> u16 {
    node.postgres.config().port
}

/// H39: the next primary has every byte of the last, the shutdown checkpoint too.
async fn switchover(a: &mut Node, b: &mut Node, c: &Node) {
    // A rewind removes slots: without them nobody could follow the next primary.
    let others = BTreeMap::from([("b".into(), None), ("c-1".into(), None)]);
    a.postgres.ensure_slots(&others, SHORT).await.unwrap();
    let replayed = b.until("both stream", |o| o.replicas.len() == 2).await.flushed;
    a.until("it is there", |o| o.replayed >= replayed).await;
    // H38: a standby that hangs gets nothing, and the stop does not wait for it.
    let receiver: i32 = c.sql("SELECT pid FROM pg_stat_wal_receiver").parse().unwrap();
    let receiver = nix::unistd::Pid::from_raw(receiver);
    nix::sys::signal::kill(receiver, Signal::SIGSTOP).unwrap();
    b.sql("INSERT INTO t SELECT generate_series(1, 100000)");
    let mut client = b.psql("SELECT pg_sleep(600)");
    let client = client.args(["-U", "app", "-d", "app"]).env("PGPASSWORD", "app-secret");
    let mut client = client.spawn().unwrap();
    b.until_sql("SELECT count(*) FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'", "1");
    let ended = timed("end sessions", b.postgres.end_sessions(&"a".into(), SHORT)).await.unwrap();
    assert_eq!(ended, Ended { clients: 1, walsenders: 1 });
    let began = std::time::Instant::now();
    b.stop(Signal::SIGINT);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}{}", b.log());
    nix::sys::signal::kill(receiver, Signal::SIGCONT).unwrap();
    assert!(!client.wait().unwrap().success());
    let stopped = b.postgres.inspect_stopped().await.unwrap();
    assert_eq!(stopped.state, ControlState::ShutDown);
    let at_a = timed("stop the receiver", a.postgres.stop_receiver(SHORT)).await.unwrap();
    assert_eq!(at_a.flushed, stopped.end, "{stopped:?}");
    let next = rule("a", &["b", "c-1"], 1);
    assert_eq!(a.postgres.hold_commits(SHORT).await.unwrap(), RuleState::Proven);
    timed("promote", a.postgres.promote(SHORT)).await.unwrap();
    timed("follow", c.postgres.follow(&"a".into(), SHORT)).await.unwrap();
    timed("record the term", a.postgres.record_term(Term(3), &next, SHORT)).await.unwrap();
    assert_eq!(a.postgres.let_confirm(&next, SHORT).await.unwrap(), RuleState::Proven);
    // It had everything, so nothing has to be rewound: it follows as it is.
    b.start_following(Some("a")).await;
    b.until("it follows", |o| o.data_term == Term(3)).await;
    assert_eq!(a.postgres.apply_rule(&next, SHORT).await.unwrap(), RuleState::Proven);
    // A standby that crashed is not rewound (H21).
    b.stop(Signal::SIGQUIT);
    let token = CancellationToken::new();
    let refused = b.postgres.rewind_from(&"a".into(), token).await;
    assert!(matches!(refused, Err(Error::NotRewindable)), "{refused:?}");
    interrupted_rewind(a).await;
}

/// H19: data whose rewind was cut never starts, and is no ground for another one.
async fn interrupted_rewind(a: &mut Node) {
    a.stop(Signal::SIGKILL);
    // H20, H25: whatever slots a copy brings along.
    let slots = a.postgres.data_dir().join("pg_replslot");
    std::fs::create_dir(slots.join("of_another")).unwrap();
    a.postgres.clean_after_copy().await.unwrap();
    assert_eq!(std::fs::read_dir(&slots).unwrap().count(), 0);
    let source = NodeId::from("b");
    let token = CancellationToken::new();
    token.cancel();
    let cut = a.postgres.rewind_from(&source, token).await;
    assert!(matches!(cut, Err(Error::Cancelled)), "{cut:?}");
    assert_eq!(a.postgres.data().await.unwrap(), Data::Mixed);
    let refused = a.postgres.prepare_start(Some(&source)).await;
    assert!(matches!(refused, Err(Error::MixedData(Sentinel::Rewinding))), "{refused:?}");
    let again = a.postgres.rewind_from(&source, CancellationToken::new()).await;
    assert!(matches!(again, Err(Error::MixedData(Sentinel::Rewinding))), "{again:?}");
    // H5: nor as a primary by somebody else.
    assert!(a.postgres.data_dir().join("standby.signal").exists());
}
