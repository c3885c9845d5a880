//! Talks to every copy by itself: whether all hold the same rows of a run, once all is whole again.
//! In: addresses of instances. Out: what differs, in words.
//! A standby replays a moment later than it streams, so it is asked until it agrees or time is up.
//! Tested by: below, against PostgreSQL.

use super::session::Login;
use crate::runtime::clock;
use std::net::SocketAddr;
use std::time::Duration;
use tandem_core::ids::NodeId;

/// Far more than a standby needs to replay what it has.
const AGREE_MAX: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);
/// How many rows, and a sum over them that the order does not change; the canary's rows too.
const SUM: &str = "
    SELECT count(*), coalesce(bit_xor(hashtextextended(line, 7)), 0) FROM (
        SELECT writer || '/' || seq FROM drill_ledger WHERE run = $1
        UNION ALL SELECT node || '/' || n FROM drill_canary WHERE run = $1) AS all_rows(line)";

/// What a copy holds of a run: rows, and their sum.
type Held = (i64, i64);

/// What differs between the copies; empty when nothing does.
pub async fn differences(
    login: &Login,
    copies: &[(NodeId, SocketAddr)],
    primary: Option<&NodeId>,
    run: &str,
) -> Vec<String> {
    let deadline = clock::now().plus(AGREE_MAX);
    loop {
        let held = futures::future::join_all(copies.iter().map(|(_, at)| held(login, *at, run)));
        let held: Vec<(&NodeId, Option<Held>)> =
            copies.iter().map(|(node, _)| node).zip(held.await).collect();
        let wrong = compare(&held, primary);
        if wrong.is_empty() || clock::now() > deadline {
            return wrong;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn held(login: &Login, address: SocketAddr, run: &str) -> Option<Held> {
    let session = login.connect(address).await?;
    let run: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&run];
    let asked = session.client().query_one(SUM, &run);
    let row = tokio::time::timeout(AGREE_MAX, asked).await.ok()?.ok()?;
    Some((row.try_get(0).ok()?, row.try_get(1).ok()?))
}

fn compare(held: &[(&NodeId, Option<Held>)], primary: Option<&NodeId>) -> Vec<String> {
    let right = held.iter().find(|(node, _)| Some(*node) == primary).and_then(|(_, held)| *held);
    let Some(right) = right else { return vec!["the primary's copy cannot be read".into()] };
    let wrong = held.iter().filter(|(_, held)| *held != Some(right));
    wrong
        .map(|(node, held)| match held {
            Some((rows, _)) => format!(
                "the copy of {node} differs: {rows} rows of this run, the primary has {}",
                right.0
            ),
            None => format!("the copy of {node} cannot be read"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::ledger;
    use super::*;
    use crate::drill::testing::Postgres;
    use crate::runtime::supervisor::Supervisor;

    #[test]
    fn a_copy_that_differs_is_named() {
        let [a, b, c] = ["a", "b", "c"].map(NodeId::new);
        let held = [(&a, Some((5, 9))), (&b, Some((5, 9))), (&c, Some((4, 9)))];
        let wrong = compare(&held, Some(&a));
        assert_eq!(wrong, ["the copy of c differs: 4 rows of this run, the primary has 5"]);
        let held = [(&a, Some((5, 9))), (&b, Some((5, 8))), (&c, None)];
        assert_eq!(compare(&held, Some(&a)).len(), 2, "as many rows, and others");
        assert_eq!(compare(&held, None), ["the primary's copy cannot be read"]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_row_more_is_another_sum() {
        let postgres = Postgres::start();
        let tasks = Supervisor::new();
        let login = Login::new(Postgres::PASSWORD, tasks.clone());
        let session = login.connect(postgres.address()).await.unwrap();
        session.client().batch_execute(ledger::TABLES).await.unwrap();
        postgres.sql("INSERT INTO drill_ledger (run, writer, seq) VALUES ('r', 1, 1), ('r', 1, 2)");
        let before = held(&login, postgres.address(), "r").await.unwrap();
        assert_eq!(before.0, 2);
        postgres.sql("INSERT INTO drill_canary (run, node, n) VALUES ('r', 'a', 1)");
        let after = held(&login, postgres.address(), "r").await.unwrap();
        assert!(after.0 == 3 && after.1 != before.1);
        assert!(tasks.stop(Duration::from_secs(5)).await);
    }
}
