//! Sessions end when their server is no longer the right one, and the client is told the truth.

use super::fake::Fake;
use super::*;
use crate::runtime::clock;
use std::sync::atomic::Ordering;

async fn pair() -> (Supervisor, Fake, Fake) {
    let supervisor = Supervisor::new();
    let (a, b) = (Fake::start(&supervisor).await, Fake::start(&supervisor).await);
    (supervisor, a, b)
}

#[tokio::test]
async fn h2_a_new_term_cuts_idle_sessions_with_57p01() {
    let (_supervisor, a, b) = pair().await;
    let stage = Stage::writing(routed(1, a.address, "a"));
    let mut client = stage.session("me").await;
    client.query("works").await.unwrap();
    stage.set(routed(2, b.address, "b"));
    assert_eq!(client.end().await, "57P01");
    until(|| stage.door.counters().sessions == 0).await;
    assert_eq!(stage.door.counters().cut, 1);
}

#[tokio::test]
async fn h2_the_term_alone_is_enough_even_while_nobody_is_primary() {
    let (_supervisor, a, _b) = pair().await;
    let stage = Stage::writing(routed(1, a.address, "a"));
    let mut client = stage.session("me").await;
    stage.set(Routes { term: Term(2), ..Routes::default() });
    assert_eq!(client.end().await, "57P01");
}

#[tokio::test]
async fn h43_what_was_in_flight_is_said_to_be_unknown() {
    let (_supervisor, a, b) = pair().await;
    let stage = Stage::writing(routed(1, a.address, "a"));
    let mut client = stage.session("me").await;
    client.send(&query("hang")).await;
    until(|| a.state.queries.load(Ordering::SeqCst) == 1).await;
    stage.set(routed(2, b.address, "b"));
    assert_eq!(client.end().await, "40003");
}

#[tokio::test]
async fn h43_what_was_sent_ahead_is_in_flight_though_what_came_before_is_answered() {
    let (_supervisor, a, b) = pair().await;
    for refuse_lower_durability in [true, false] {
        let config = DoorConfig { refuse_lower_durability, ..config(Mode::Write) };
        let stage = Stage::open(config, limits(), routed(1, a.address, "a"));
        let (mut left, mut cut) = (stage.session("left").await, stage.session("cut").await);
        let mut done = stage.session("done").await;
        done.send(&[query("works"), query("works")].concat()).await;
        done.until_ready().await.unwrap();
        done.until_ready().await.unwrap();
        left.send(&[query("works"), query("leave")].concat()).await;
        left.until_ready().await.unwrap();
        assert_eq!(left.end().await, "40003", "refuses: {refuse_lower_durability}");
        let asked = a.state.queries.load(Ordering::SeqCst);
        cut.send(&[query("works"), query("hang")].concat()).await;
        until(|| a.state.queries.load(Ordering::SeqCst) == asked + 2).await;
        cut.until_ready().await.unwrap();
        stage.set(routed(2, b.address, "b"));
        assert_eq!(cut.end().await, "40003", "refuses: {refuse_lower_durability}");
        assert_eq!(done.end().await, "57P01", "refuses: {refuse_lower_durability}");
    }
}

#[tokio::test]
async fn in_the_middle_of_a_message_the_connection_is_just_closed() {
    let (_supervisor, a, b) = pair().await;
    let stage = Stage::writing(routed(1, a.address, "a"));
    let mut client = stage.session("me").await;
    client.send(&query("half")).await;
    let mut half = [0; 50];
    within(client.0.read_exact(&mut half)).await.unwrap();
    stage.set(routed(2, b.address, "b"));
    assert_eq!(within(client.0.read(&mut half)).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn h41_routes_that_expire_cut_and_then_hold() {
    let (_supervisor, a, _b) = pair().await;
    let until = |ms| Some(clock::now().plus(Duration::from_millis(ms)));
    let stage = Stage::writing(Routes { valid_until: until(60_000), ..routed(1, a.address, "a") });
    let mut client = stage.session("me").await;
    stage.set(Routes { valid_until: until(30), ..routed(1, a.address, "a") });
    client.query("works").await.unwrap();
    let (_, body) = client.message().await.unwrap();
    assert_eq!(sqlstate(&body), "57P01");
    assert!(field(&body, b'M').contains("lost contact"), "{}", field(&body, b'M'));
    let mut next = stage.asking("next").await;
    stage.held(1).await;
    stage.set(Routes { valid_until: until(60_000), ..routed(1, a.address, "a") });
    next.until_ready().await.unwrap();
}

#[tokio::test]
async fn a_server_that_leaves_ends_the_session_with_a_message() {
    let (_supervisor, a, _b) = pair().await;
    let stage = Stage::writing(routed(1, a.address, "a"));
    let mut busy = stage.session("busy").await;
    busy.send(&query("leave")).await;
    assert_eq!(busy.end().await, "40003");
    let mut idle = stage.session("idle").await;
    idle.query("answer and leave").await.unwrap();
    assert_eq!(idle.end().await, "57P01");
}

#[tokio::test]
async fn h11_a_commit_without_its_standbys_is_never_success() {
    let (_supervisor, a, _b) = pair().await;
    let stage = Stage::writing(routed(1, a.address, "a"));
    let mut client = stage.session("me").await;
    client.send(&query("local")).await;
    assert_eq!(client.message().await.unwrap().0, b'N');
    assert_eq!(client.end().await, "40003");
    assert_eq!(stage.door.counters().local_commits, 1);
}

#[tokio::test]
async fn a_large_result_arrives_whole_at_a_slow_reader() {
    let (_supervisor, a, _b) = pair().await;
    let stage = Stage::writing(routed(1, a.address, "a"));
    let mut client = stage.session("me").await;
    let kinds = client.query("rows").await.unwrap();
    assert_eq!(kinds.len(), 5002);
}

#[tokio::test]
async fn a_server_that_breaks_the_protocol_loses_the_session_only() {
    let (_supervisor, a, _b) = pair().await;
    let stage = Stage::writing(routed(1, a.address, "a"));
    let mut client = stage.session("me").await;
    client.send(&query("bad length")).await;
    assert_eq!(client.end().await, "");
    stage.session("next").await.query("works").await.unwrap();
}

#[tokio::test]
async fn a_closing_door_lets_sessions_end_and_cuts_the_rest() {
    let (_supervisor, a, _b) = pair().await;
    let stage = Stage::writing(routed(1, a.address, "a"));
    let mut leaving = stage.session("leaving").await;
    let mut staying = stage.session("staying").await;
    let closing = stage.door.close(Duration::from_millis(100));
    let client = async {
        leaving.query("works").await.unwrap();
        leaving.send(&message(b'X', b"")).await;
        assert!(leaving.message().await.is_none());
        staying.end().await
    };
    let (drained, code) = tokio::join!(closing, client);
    assert!(!drained);
    assert_eq!(code, "57P01");
    assert_eq!(stage.door.counters().sessions, 0);
}

#[tokio::test]
async fn a_stopped_supervisor_ends_everything() {
    let (_supervisor, a, _b) = pair().await;
    let stage = Stage::writing(routed(1, a.address, "a"));
    let mut client = stage.session("me").await;
    let (stopped, code) = tokio::join!(stage.supervisor.stop(LIMIT), client.end());
    assert!(stopped);
    assert_eq!(code, "57P01");
}

/// What 10,000 idle sessions cost is this, twice a socket, and no buffer.
#[tokio::test]
async fn a_session_task_is_small() {
    let (_supervisor, a, _b) = pair().await;
    let stage = Stage::writing(routed(1, a.address, "a"));
    let client = TcpStream::connect(stage.address()).await.unwrap();
    let shared = stage.door.shared_for_tests();
    let size = std::mem::size_of_val(&crate::proxy::session::serve(shared, client));
    assert!(size < 4096, "{size} bytes");
}
