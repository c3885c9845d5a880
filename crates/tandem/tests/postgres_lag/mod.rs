//! For how long a replica has had something that it does not show.

use crate::postgres_cluster::{SHORT, nodes, rule};
use std::time::{Duration, Instant};
use tandem_core::ids::Term;

/// What has no commit ages nobody: neither an idle time before a write nor an open transaction.
#[tokio::test]
async fn a_replica_is_as_late_as_what_it_has_and_does_not_show() {
    let (_dir, mut nodes) = nodes(&["a", "b"]).await;
    let [a, b] = nodes.as_mut_slice() else { panic!("two") };
    let alone = rule("a", &[], 0);
    crate::found(a).await;
    a.postgres.record_term(Term(1), &alone, SHORT).await.unwrap();
    a.postgres.let_confirm(&alone, SHORT).await.unwrap();
    crate::clone(b, "a").await;
    a.sql("CREATE TABLE t (i int)");
    let mut observer = b.postgres.observer();
    b.until_seen(&mut observer, "all is replayed", |o| o.flushed == o.replayed).await;
    let idle = "clock_timestamp() - pg_last_xact_replay_timestamp() > interval '1 second'";
    b.until_sql(&format!("SELECT {idle}"), "t");
    b.sql("SELECT pg_wal_replay_pause()");
    let began = Instant::now();
    let mut writer = a.psql("BEGIN; INSERT INTO t SELECT generate_series(1, 1000)");
    let mut writer = writer.args(["-c", "SELECT pg_sleep(60)"]).spawn().unwrap();
    let seen = b.until_seen(&mut observer, "it has more", |o| o.flushed > o.replayed).await;
    assert!(seen.replay_delay <= began.elapsed(), "{seen:?}");
    let behind = Duration::from_millis(300);
    b.until_seen(&mut observer, "it lags", |o| o.replay_delay > behind).await;
    b.sql("SELECT pg_wal_replay_resume()");
    b.until_seen(&mut observer, "it does not lag", |o| o.replay_delay.is_zero()).await;
    // What it has now mostly ends with half a record, whose rest comes only with a later one.
    let began = Instant::now();
    while began.elapsed() < 2 * behind {
        let seen = observer.observe(SHORT).await.unwrap();
        assert!(seen.replay_delay < behind, "{seen:?}");
    }
    writer.kill().unwrap();
    writer.wait().unwrap();
}
