//! Three real nodes, and what went wrong in reviews: each story is one that lost time, a copy or a
//! guarantee once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail the test")]
#![allow(clippy::print_stdout, reason = "times are reported, never asserted")]

mod cluster;

use cluster::Running;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stories_of_one_cluster() {
    let running = Running::start().await;
    a_planned_move_copies_nothing(&running).await;
    whom_commits_wait_for_is_put_right(&running).await;
    a_standby_that_does_not_replay_is_said_to_lag(&running).await;
    a_query_on_a_standby_does_not_hold_up_an_election(&running).await;
    a_primary_that_shuts_down_for_ever_is_replaced(&running).await;
    two_copies_are_never_thrown_away_at_once(&running).await;
    a_copy_that_an_election_interrupts_is_made_again(&running).await;
    running.stop().await;
}

/// H18, H39: the old primary and the other standby follow the new one as they are.
async fn a_planned_move_copies_nothing(running: &Running) {
    let before = running.primary().await;
    running.said(&["switchover", "orders"]);
    running.redundant().await;
    assert_ne!(running.primary().await, before);
    let events = running.said(&["events", "--json"]);
    for kind in ["clone.started", "rejoin.rewound", "rejoin.failed"] {
        // The first copies were made before there was a primary of an earlier term.
        let later =
            events.lines().filter(|line| line.contains(kind) && line.contains("\"term\":2"));
        assert_eq!(later.count(), 0, "{kind}: {events}");
    }
    running.took("planned move");
}

/// H9: a superuser empties the names; commits must wait for somebody again, without a human.
async fn whom_commits_wait_for_is_put_right(running: &Running) {
    let primary = running.primary().await;
    let client = running.superuser(&primary).await;
    client.batch_execute("ALTER SYSTEM SET synchronous_standby_names = ''").await.unwrap();
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let overridden = "SELECT count(*) FROM pg_file_settings \
                      WHERE name = 'synchronous_standby_names' AND sourcefile LIKE '%.auto.conf'";
    running
        .until("the names are back", async || {
            let lines: i64 = client.query_one(overridden, &[]).await.unwrap().get(0);
            let row = client.query_one("SHOW synchronous_standby_names", &[]).await.unwrap();
            lines == 0 && row.get::<_, &str>(0).starts_with("ANY 1")
        })
        .await;
    running.redundant().await;
    running.took("names put right");
}

/// What `read_lag_max` in time goes by: received is not replayed.
async fn a_standby_that_does_not_replay_is_said_to_lag(running: &Running) {
    let primary = running.primary().await;
    let standby = running.nodes().into_iter().find(|node| *node != primary).unwrap();
    let (writer, reader) = (running.superuser(&primary).await, running.superuser(&standby).await);
    reader.batch_execute("SELECT pg_wal_replay_pause()").await.unwrap();
    writer.batch_execute("CREATE TABLE not_replayed (x int)").await.unwrap();
    let lag_s = || {
        let status = running.said(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let instances = status["services"][0]["instances"].as_array().unwrap().clone();
        let own = instances.iter().find(|it| it["node"] == standby.as_str()).unwrap();
        own["lag_s"].as_f64()
    };
    running.until("it lags", async || lag_s().is_some_and(|lag| lag > 1.0)).await;
    reader.batch_execute("SELECT pg_wal_replay_resume()").await.unwrap();
    running.until("it no longer lags", async || lag_s().is_some_and(|lag| lag < 1.0)).await;
    running.took("lag of a paused replay");
}

/// H15: the replay waits for a lock that a reader holds; the vote does not.
async fn a_query_on_a_standby_does_not_hold_up_an_election(running: &Running) {
    let (primary, term) = (running.primary().await, running.term().await);
    let writer = running.superuser(&primary).await;
    writer.batch_execute("CREATE TABLE read_for_long AS SELECT 1 AS x").await.unwrap();
    let mut readers = Vec::new();
    for standby in running.nodes().into_iter().filter(|node| *node != primary) {
        let reader = running.superuser(&standby).await;
        running
            .until("the table is there", async || {
                reader.batch_execute("SELECT FROM read_for_long").await.is_ok()
            })
            .await;
        reader.batch_execute("BEGIN; SELECT FROM read_for_long").await.unwrap();
        readers.push(reader);
    }
    writer.batch_execute("ALTER TABLE read_for_long ADD COLUMN y int").await.unwrap();
    running.dev().kill_postmaster(&primary).unwrap();
    running.serves_after(term).await;
    running.took("election beside a reader");
    drop(readers);
    running.redundant().await;
}

/// A smart shutdown waits for sessions, the daemon's own among them, and lets nobody in.
async fn a_primary_that_shuts_down_for_ever_is_replaced(running: &Running) {
    let (primary, term) = (running.primary().await, running.term().await);
    let folder = running.dev().layout().place(&primary).unwrap().dir.clone();
    let pid_file = folder.join("services/orders/data/postmaster.pid");
    let pid = fs::read_to_string(pid_file).unwrap().lines().next().unwrap().parse().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    running.serves_after(term).await;
    running.took("smart shutdown");
    running.redundant().await;
}

/// INV-11: each reinit alone is safe, both at once would leave one copy of what was acknowledged.
async fn two_copies_are_never_thrown_away_at_once(running: &Running) {
    let primary = running.primary().await;
    let standbys: Vec<_> = running.nodes().into_iter().filter(|node| *node != primary).collect();
    let asked = standbys.iter().map(|node| running.begin(&["reinit", "--node", node.as_str()]));
    let mut asked: Vec<_> = asked.collect();
    running
        .until("both were answered", async || {
            let mut streaming = 0;
            for node in &standbys {
                let state = running.state_of(node).await;
                streaming += usize::from(state.as_deref() == Some("streaming"));
            }
            assert!(streaming > 0, "no standby is left that holds what was acknowledged");
            asked.iter_mut().all(|it| it.ended().is_some())
        })
        .await;
    let codes: Vec<_> = asked.iter_mut().filter_map(|it| it.ended()).collect();
    assert!(codes.iter().all(|code| [0, 3].contains(code)), "done or refused: {codes:?}");
    running.redundant().await;
    let status = running.said(&["status", "--json"]);
    assert!(!status.contains("\"draining\""), "no node is left so: {status}");
    running.said(&["reinit", "--node", standbys[0].as_str()]);
    running.redundant().await;
    running.took("two copies at once, then one");
}

/// H19: what a copy left half-done when its source was lost is no dead end.
async fn a_copy_that_an_election_interrupts_is_made_again(running: &Running) {
    let (primary, term) = (running.primary().await, running.term().await);
    let client = running.superuser(&primary).await;
    let much = "CREATE TABLE much AS SELECT n, repeat('x', 400) FROM generate_series(1, 300000) n";
    client.batch_execute(much).await.unwrap();
    let copied = running.nodes().into_iter().find(|node| *node != primary).unwrap();
    let asked = running.begin(&["reinit", "--node", copied.as_str(), "orders"]);
    running
        .until("it copies", async || running.state_of(&copied).await.as_deref() == Some("cloning"))
        .await;
    running.dev().kill_postmaster(&primary).unwrap();
    running.serves_after(term).await;
    drop(asked);
    running.redundant().await;
    running.took("interrupted copy");
}
