//! A cancel request reaches the server that issued its key.

use super::fake::Fake;
use super::*;

const CODE: u32 = 80_877_102;

#[tokio::test]
async fn a_known_key_goes_to_its_server_only() {
    let supervisor = Supervisor::new();
    let a = Fake::with_secret(&supervisor, vec![1; 4]).await;
    let b = Fake::with_secret(&supervisor, vec![2; 32]).await;
    let stage = Stage::open(config(Mode::Read), limits(), Routes::default());
    for (node, fake) in [("a", &a), ("b", &b)] {
        stage.set(Routes {
            term: Term(1),
            replicas: vec![replica(node, fake.address)],
            ..Routes::default()
        });
        let session = stage.session("me").await;
        // The routes no longer name the server; the key does.
        stage.set(Routes { term: Term(1), ..Routes::default() });
        let request = [&7u32.to_be_bytes()[..], &fake.secret].concat();
        let mut canceller = stage.client().await;
        canceller.send(&packet(CODE, &request)).await;
        assert!(canceller.message().await.is_none());
        assert_eq!(fake.cancels(), [request]);
        drop(session);
    }
    assert_eq!((a.cancels().len(), b.cancels().len()), (1, 1));
    assert_eq!(stage.door.counters().cancels, 2);
}

#[tokio::test]
async fn an_unknown_key_goes_to_every_server() {
    let supervisor = Supervisor::new();
    let (a, b) = (Fake::start(&supervisor).await, Fake::start(&supervisor).await);
    let stage = Stage::writing(Routes {
        replicas: vec![replica("b", b.address)],
        ..routed(1, a.address, "a")
    });
    let mut canceller = stage.client().await;
    canceller.send(&packet(CODE, &[9; 8])).await;
    assert!(canceller.message().await.is_none());
    assert_eq!((a.cancels(), b.cancels()), (vec![vec![9; 8]], vec![vec![9; 8]]));
}

#[tokio::test]
async fn a_server_that_is_gone_does_not_hang_the_canceller() {
    let supervisor = Supervisor::new();
    let fake = Fake::start(&supervisor).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Accepts by its backlog and never answers.
    let silent = listener.local_addr().unwrap();
    let short = Limits { cancel: Duration::from_millis(50), ..limits() };
    let stage = Stage::open(
        config(Mode::Write),
        short,
        Routes { replicas: vec![replica("b", silent)], ..routed(1, fake.address, "a") },
    );
    let mut canceller = stage.client().await;
    canceller.send(&packet(CODE, &[9; 8])).await;
    assert!(canceller.message().await.is_none());
    assert_eq!(fake.cancels().len(), 1);
}
