//! A session that lowers what its commits wait for, or hides that they did not, is told so, and
//! keeps every answer to what it sent before.

use super::fake::Fake;
use super::*;
use std::sync::atomic::Ordering;

const LOWER: &str = "SET synchronous_commit = off";

async fn stage() -> (Supervisor, Fake, Stage) {
    let supervisor = Supervisor::new();
    let fake = Fake::start(&supervisor).await;
    let stage = Stage::writing(routed(1, fake.address, "a"));
    (supervisor, fake, stage)
}

#[tokio::test]
async fn h13_a_statement_that_lowers_it_never_reaches_the_server() {
    let (_supervisor, fake, stage) = stage().await;
    let advised = [
        (LOWER, "Set synchronous_commit to on or remote_apply, or remove the statement."),
        (
            "SET client_min_messages = error",
            "Set client_min_messages to warning or lower, or remove the statement.",
        ),
    ];
    for (number, (text, advice)) in advised.into_iter().enumerate() {
        let mut client = stage.session("me").await;
        client.query("SHOW synchronous_commit").await.unwrap();
        client.send(&query(text)).await;
        let (kind, body) = client.message().await.unwrap();
        assert_eq!((kind, sqlstate(&body).as_str()), (b'E', "22023"));
        assert!(field(&body, b'M').starts_with("service orders does not allow "));
        assert!(field(&body, b'D').contains("was not executed"));
        assert_eq!(field(&body, b'H'), advice);
        assert!(client.message().await.is_none(), "the session goes on");
        assert_eq!(fake.state.queries.load(Ordering::SeqCst), number + 1);
    }
    assert_eq!(stage.door.counters().refused, 2);
}

#[tokio::test]
async fn h13_what_was_sent_before_is_answered_first() {
    let (_supervisor, fake, stage) = stage().await;
    let mut client = stage.session("me").await;
    client.send(&[query("rows"), query("works"), query(LOWER), query("after")].concat()).await;
    assert_eq!(client.until_ready().await.unwrap().len(), 5002);
    assert_eq!(client.until_ready().await.unwrap(), b"CZ");
    assert_eq!(client.end().await, "22023");
    assert_eq!(fake.state.queries.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn h43_what_was_sent_before_and_has_no_answer_is_unknown() {
    let (_supervisor, _fake, stage) = stage().await;
    for before in ["hang", "leave"] {
        let mut client = stage.session("me").await;
        client.send(&[query(before), query(LOWER)].concat()).await;
        let (_, body) = client.message().await.unwrap();
        assert_eq!(sqlstate(&body), "40003", "{before}");
        assert!(field(&body, b'M').contains("outcome of earlier statements unknown"));
        assert!(client.message().await.is_none());
    }
}

#[tokio::test]
async fn a_frozen_server_does_not_keep_the_client_from_its_answer() {
    let supervisor = Supervisor::new();
    let fake = Fake::start(&supervisor).await;
    let short = Limits { linger: Duration::from_millis(50), ..limits() };
    let stage = Stage::open(config(Mode::Write), short, routed(1, fake.address, "a"));
    let mut client = stage.session("me").await;
    client.send(&query("freeze")).await;
    client.send(&query(LOWER)).await;
    assert_eq!(client.end().await, "40003");
}

#[tokio::test]
async fn a_statement_is_refused_at_every_split() {
    let (_supervisor, fake, stage) = stage().await;
    let bytes = query(LOWER);
    for cut in (1..bytes.len()).step_by(5) {
        let mut client = stage.session("me").await;
        client.0.set_nodelay(true).unwrap();
        client.send(&bytes[..cut]).await;
        tokio::task::yield_now().await;
        client.send(&bytes[cut..]).await;
        assert_eq!(client.end().await, "22023", "{cut}");
    }
    assert_eq!(fake.state.queries.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_statement_sent_ahead_of_the_authentication_is_refused() {
    let (_supervisor, fake, stage) = stage().await;
    let mut client = stage.client().await;
    client.send(&[startup(&[("user", "me")]), query(LOWER)].concat()).await;
    while let Ok(_ready) = client.until_ready().await {}
    assert!(client.message().await.is_none());
    assert_eq!(fake.state.queries.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn where_it_is_allowed_nothing_is_looked_at() {
    let supervisor = Supervisor::new();
    let fake = Fake::start(&supervisor).await;
    let allowed = DoorConfig { refuse_lower_durability: false, ..config(Mode::Write) };
    let stage = Stage::open(allowed, limits(), routed(1, fake.address, "a"));
    let mut client = stage.session("me").await;
    client.query(LOWER).await.unwrap();
    client.query("SET client_min_messages = error").await.unwrap();
}
