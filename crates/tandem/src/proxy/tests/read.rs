//! Reads are spread over the replicas, and stay where they are.

use super::fake::{Fake, Login};
use super::*;
use crate::runtime::clock;

struct Trio {
    stage: Stage,
    fakes: Vec<Fake>,
}

impl Trio {
    /// Primary a, replicas b, c, d.
    async fn open() -> Self {
        let supervisor = Supervisor::new();
        let mut fakes = Vec::new();
        for _ in 0..4 {
            fakes.push(Fake::start(&supervisor).await);
        }
        let stage = Stage::open(config(Mode::Read), limits(), Routes::default());
        Self { stage, fakes }
    }

    fn routes(&self, replicas: &[usize]) -> Routes {
        let name = |index: usize| ["a", "b", "c", "d"][index];
        Routes {
            replicas: replicas
                .iter()
                .map(|index| replica(name(*index), self.fakes[*index].address))
                .collect(),
            ..routed(1, self.fakes[0].address, "a")
        }
    }

    fn sessions(&self) -> Vec<usize> {
        self.fakes.iter().map(|fake| fake.users().len()).collect()
    }
}

#[tokio::test]
async fn sessions_spread_evenly_over_the_replicas() {
    let trio = Trio::open().await;
    trio.stage.set(trio.routes(&[1, 2, 3]));
    let mut clients = Vec::new();
    for _ in 0..30 {
        clients.push(trio.stage.session("me").await);
    }
    assert_eq!(trio.sessions(), [0, 10, 10, 10]);
}

#[tokio::test]
async fn sessions_that_come_together_spread_too() {
    let trio = Trio::open().await;
    let mut clients = Vec::new();
    for _ in 0..30 {
        clients.push(trio.stage.asking("me").await);
    }
    trio.stage.held(30).await;
    trio.stage.set(trio.routes(&[1, 2, 3]));
    for client in &mut clients {
        client.until_ready().await.unwrap();
    }
    assert_eq!(trio.sessions(), [0, 10, 10, 10]);
}

#[tokio::test]
async fn without_a_replica_the_primary_reads_and_without_both_clients_wait() {
    let trio = Trio::open().await;
    let mut waiting = trio.stage.asking("waiting").await;
    trio.stage.held(1).await;
    trio.stage.set(trio.routes(&[]));
    waiting.until_ready().await.unwrap();
    assert_eq!(trio.sessions(), [1, 0, 0, 0]);
}

#[tokio::test]
async fn a_replica_that_is_not_ready_is_passed_over() {
    let trio = Trio::open().await;
    trio.fakes[1].login(Login::NotNow);
    trio.stage.set(trio.routes(&[1, 2]));
    for _ in 0..4 {
        trio.stage.session("me").await;
    }
    assert_eq!(trio.fakes[2].users().len(), 4);
}

#[tokio::test]
async fn lag_cuts_nobody_but_a_replica_that_is_gone_does() {
    let trio = Trio::open().await;
    trio.stage.set(trio.routes(&[1]));
    let mut client = trio.stage.session("me").await;
    // Promoted: listed as the primary of a later term, so the session goes on.
    trio.stage.set(routed(2, trio.fakes[1].address, "b"));
    client.query("works").await.unwrap();
    // Unlisted for less than the limit: nothing happens.
    trio.stage.set(Routes { term: Term(2), ..trio.routes(&[2]) });
    client.query("works").await.unwrap();
    trio.stage.set(Routes { term: Term(2), ..trio.routes(&[1, 2]) });
    client.query("works").await.unwrap();
    let gone = clock::now();
    trio.stage.set(Routes { term: Term(2), ..trio.routes(&[2]) });
    let (_, body) = client.message().await.unwrap();
    assert_eq!(sqlstate(&body), "57P01");
    assert!(clock::now().since(gone) >= limits().replica_missing);
}

#[tokio::test]
async fn replicas_are_shown_as_the_routes_say_though_nobody_is_led() {
    let trio = Trio::open().await;
    let shown =
        || -> Vec<String> { trio.stage.door.readers().into_iter().map(|it| it.upstream).collect() };
    trio.stage.set(trio.routes(&[1, 2]));
    assert_eq!(shown(), ["b", "c"]);
    trio.stage.set(trio.routes(&[2, 3]));
    assert_eq!(shown(), ["c", "d"]);
}
