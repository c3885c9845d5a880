//! Clients wait for a server, in order, within bounds, and lose nothing by it.

use super::fake::{Fake, Login};
use super::*;
use crate::proxy::Limits;
use std::sync::atomic::Ordering;
use tokio::net::TcpListener;

#[tokio::test]
async fn held_clients_are_released_in_order() {
    let one = Limits { connects_max: 1, ..limits() };
    let stage = Stage::open(config(Mode::Write), one, Routes::default());
    let fake = Fake::start(&stage.supervisor).await;
    let mut clients = Vec::new();
    for number in 0..8 {
        clients.push(stage.asking(&format!("user{number}")).await);
        stage.held(number + 1).await;
    }
    stage.set(routed(1, fake.address, "a"));
    for client in &mut clients {
        client.until_ready().await.unwrap();
    }
    assert_eq!(fake.users(), (0..8).map(|n| format!("user{n}")).collect::<Vec<_>>());
    let counters = stage.door.counters();
    assert_eq!((counters.held, counters.routed, counters.sessions), (0, 8, 8));
}

#[tokio::test]
async fn a_release_is_no_stampede() {
    let four = Limits { connects_max: 4, ..limits() };
    let stage = Stage::open(config(Mode::Write), four, Routes::default());
    let fake = Fake::start(&stage.supervisor).await;
    fake.login(Login::OnNotice);
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(stage.asking("me").await);
    }
    stage.held(20).await;
    stage.set(routed(1, fake.address, "a"));
    let unanswered = || fake.state.unanswered.load(Ordering::SeqCst);
    for answered in 0..20usize {
        let connecting = 4.min(20 - answered);
        until(|| unanswered() == connecting).await;
        fake.state.answer.notify_one();
        until(|| stage.door.counters().routed == answered as u64 + 1).await;
        assert!(unanswered() <= 4);
    }
    for client in &mut clients {
        client.until_ready().await.unwrap();
    }
}

#[tokio::test]
async fn a_hold_expires_with_57p03_and_says_why() {
    let mut short = config(Mode::Write);
    short.hold_max = Duration::from_millis(50);
    let stage = Stage::open(short, limits(), Routes::default());
    let mut client = stage.asking("me").await;
    let (kind, body) = client.message().await.unwrap();
    assert_eq!((kind, sqlstate(&body).as_str()), (b'E', "57P03"));
    assert_eq!(field(&body, b'S'), "FATAL");
    assert_eq!(field(&body, b'M'), "service orders cannot take connections now");
    assert!(field(&body, b'D').contains("no node is primary"), "{}", field(&body, b'D'));
    assert!(field(&body, b'H').contains("Try again"));
    assert!(client.message().await.is_none());
    until(|| stage.door.counters().sessions == 0).await;
    assert_eq!((stage.door.counters().expired, stage.door.counters().held), (1, 0));
}

#[tokio::test]
async fn beyond_the_bound_a_client_is_turned_away_at_once() {
    let mut two = config(Mode::Write);
    two.held_max = 2;
    let stage = Stage::open(two, limits(), Routes::default());
    let fake = Fake::start(&stage.supervisor).await;
    let mut first = stage.asking("first").await;
    let _second = stage.asking("second").await;
    stage.held(2).await;
    assert_eq!(stage.asking("third").await.end().await, "53300");
    stage.set(routed(1, fake.address, "a"));
    first.until_ready().await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_place_at_once() {
    let stage = Stage::writing(Routes::default());
    let fake = Fake::start(&stage.supervisor).await;
    let leaver = stage.asking("leaver").await;
    stage.held(1).await;
    drop(leaver);
    stage.held(0).await;
    let mut reset = stage.asking("reset").await;
    reset.send(b"pipelined").await;
    stage.held(1).await;
    drop(reset);
    stage.held(0).await;
    stage.set(routed(1, fake.address, "a"));
    stage.session("next").await;
    assert_eq!(fake.users(), ["next"]);
}

#[tokio::test]
async fn a_switchover_holds_new_sessions_and_leaves_the_others() {
    let supervisor = Supervisor::new();
    let (a, b) = (Fake::start(&supervisor).await, Fake::start(&supervisor).await);
    let stage = Stage::writing(routed(1, a.address, "a"));
    let mut old = stage.session("old").await;
    stage.set(Routes { holding: true, ..routed(1, a.address, "a") });
    let mut new = stage.asking("new").await;
    stage.held(1).await;
    old.query("still here").await.unwrap();
    stage.set(routed(2, b.address, "b"));
    new.until_ready().await.unwrap();
    assert_eq!((a.users(), b.users()), (vec!["old".into()], vec!["new".into()]));
    assert_eq!(old.end().await, "57P01");
}

#[tokio::test]
async fn h43_a_server_that_is_not_ready_is_tried_again_unseen() {
    for trouble in [Login::NotNow, Login::Close] {
        let supervisor = Supervisor::new();
        let fake = Fake::start(&supervisor).await;
        fake.login(trouble);
        let stage = Stage::writing(routed(1, fake.address, "a"));
        let mut client = stage.asking("me").await;
        until(|| stage.door.counters().retried >= 3).await;
        assert_eq!(stage.door.counters().held, 1);
        fake.login(Login::Accept);
        assert_eq!(client.until_ready().await.unwrap(), b"RKZ");
        client.query("works").await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_refuses_connections_is_tried_again() {
    // On an address of its own: no other test takes its port once it is free.
    let listener = TcpListener::bind("127.0.0.77:0").await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let stage = Stage::writing(routed(1, closed, "a"));
    let fake = Fake::start(&stage.supervisor).await;
    let mut client = stage.asking("me").await;
    until(|| stage.door.counters().retried >= 3).await;
    stage.set(routed(2, fake.address, "b"));
    client.until_ready().await.unwrap();
}

#[tokio::test]
async fn a_server_that_hangs_does_not_keep_a_client_from_the_next_primary() {
    let supervisor = Supervisor::new();
    let (a, b) = (Fake::start(&supervisor).await, Fake::start(&supervisor).await);
    a.login(Login::Silent);
    let stage = Stage::writing(routed(1, a.address, "a"));
    let mut client = stage.asking("me").await;
    until(|| a.users().len() == 1).await;
    stage.set(routed(2, b.address, "b"));
    client.until_ready().await.unwrap();
    assert_eq!(b.users(), ["me"]);
}

#[tokio::test]
async fn what_a_client_sends_ahead_is_kept() {
    let stage = Stage::writing(Routes::default());
    let fake = Fake::start(&stage.supervisor).await;
    let mut client = stage.asking("me").await;
    client.send(&query("early")).await;
    stage.held(1).await;
    stage.set(routed(1, fake.address, "a"));
    client.until_ready().await.unwrap();
    assert_eq!(client.until_ready().await.unwrap(), b"CZ");
}

#[tokio::test]
async fn h41_routes_that_expired_hold_and_an_older_term_does_not_come_back() {
    let supervisor = Supervisor::new();
    let fake = Fake::start(&supervisor).await;
    let now = crate::runtime::clock::now();
    let stage = Stage::writing(Routes { valid_until: Some(now), ..routed(2, fake.address, "a") });
    let mut client = stage.asking("me").await;
    stage.held(1).await;
    let later = now.plus(Duration::from_secs(60));
    stage.set(Routes { valid_until: Some(later), ..routed(1, fake.address, "old") });
    let mut second = stage.asking("second").await;
    stage.held(2).await;
    assert!(fake.users().is_empty());
    stage.set(Routes { valid_until: Some(later), ..routed(2, fake.address, "a") });
    client.until_ready().await.unwrap();
    second.until_ready().await.unwrap();
}

#[tokio::test]
async fn a_closing_door_tells_those_it_holds() {
    let stage = Stage::writing(Routes::default());
    let mut client = stage.asking("me").await;
    stage.held(1).await;
    let (closed, code) = tokio::join!(stage.door.close(LIMIT), client.end());
    assert!(closed);
    assert_eq!(code, "57P03");
    assert!(TcpStream::connect(stage.address()).await.is_err());
}
