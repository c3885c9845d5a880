//! The copy of divided work that asks: it waits for news, and is told what cannot be.

use super::fake::{Fake, Seat, own};
use super::{PATIENCE, Served, serve, serve_fake};
use crate::api::server::Limits;
use hyper::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

const PATH: &str = "/v1/services/work/partitions";

/// A node whose copy was told that version last.
async fn serve_seat(version: Option<u64>, limits: Limits) -> (Served, Arc<Seat>) {
    let seat = Arc::new(Seat::new(version));
    let fake = Fake { seat: Some(seat.clone()), ..Fake::new() };
    (serve_fake(fake, limits).await, seat)
}

fn said(version: u64) -> (u16, Value) {
    (200, serde_json::to_value(own(version)).unwrap())
}

async fn refused(served: &Served, method: Method, path: &str, body: &str) -> (u16, String) {
    let (status, problem) = served.json(method, path, body).await;
    for part in ["what", "because", "try"] {
        assert!(problem[part].as_str().is_some_and(|text| !text.is_empty()), "{path}: {problem}");
    }
    (status, problem["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn what_a_copy_owns_is_told_at_once_where_it_does_not_know_it() {
    let (served, _seat) = serve_seat(Some(7), Limits::default()).await;
    let expected = json!({
        "service": "work", "node": "a", "term": 4, "version": 7, "lease_ms": 1400,
        "before": 1,
        "partitions": [
            {"id": 4, "epoch": 7, "state": "releasing", "deadline_ms": 900},
            {"id": 5, "epoch": 2, "state": "owned"},
        ],
    });
    for query in ["", "?after=6&wait=60s", "?after=8&wait=60s", "?after=7", "?wait=60s"] {
        assert_eq!(served.get(&format!("{PATH}{query}")).await, (200, expected.clone()), "{query}");
    }
    served.stop().await;
}

#[tokio::test]
async fn a_long_poll_waits_for_another_version_and_wakes_with_it() {
    let (served, seat) = serve_seat(Some(7), Limits::default()).await;
    let poll = served.get("/v1/services/work/partitions?after=7&wait=60s");
    let mut poll = Box::pin(timeout(PATIENCE, poll));
    for looks in 1..=2 {
        tokio::select! {
            biased;
            answer = &mut poll => panic!("nothing is new: {answer:?}"),
            () = seat.looked_at(looks) => {}
        }
        // Woken, though nothing is new: it goes on waiting.
        seat.tells(7);
    }
    seat.tells(8);
    assert_eq!(poll.await.unwrap(), said(8));
    served.stop().await;
}

#[tokio::test]
async fn a_long_poll_that_waits_in_vain_says_what_is_so_once_its_time_is_over() {
    let (served, _seat) = serve_seat(Some(7), Limits::default()).await;
    for (wait, least_ms) in [("wait=80ms", 80), ("wait=1s", 1000), ("wait=1", 1000)] {
        let since = Instant::now();
        assert_eq!(served.get(&format!("{PATH}?after=7&{wait}")).await, said(7), "{wait}");
        assert!(since.elapsed() >= Duration::from_millis(least_ms), "{wait}: {since:?}");
    }
    served.stop().await;
}

#[tokio::test]
async fn what_is_not_known_yet_is_waited_for_or_said_to_be_unknown() {
    let (served, _seat) = serve_seat(None, Limits::default()).await;
    for query in ["", "?after=7", "?wait=50ms"] {
        let path = format!("{PATH}{query}");
        assert_eq!(refused(&served, Method::GET, &path, "").await, (503, "TDM0711".to_owned()));
    }
    served.stop().await;
    let (served, seat) = serve_seat(None, Limits::default()).await;
    let path = format!("{PATH}?wait=60s");
    let mut poll = Box::pin(timeout(PATIENCE, served.get(&path)));
    tokio::select! {
        biased;
        answer = &mut poll => panic!("nothing is known: {answer:?}"),
        () = seat.looked_at(1) => {}
    }
    seat.tells(1);
    assert_eq!(poll.await.unwrap(), said(1));
    served.stop().await;
}

#[tokio::test]
async fn only_what_was_asked_back_can_be_released() {
    let (served, _seat) = serve_seat(Some(7), Limits::default()).await;
    let release = |id: u32| format!("{PATH}/{id}/release");
    let (status, answer) = served.json(Method::POST, &release(4), r#"{"epoch":7}"#).await;
    assert_eq!((status, answer), (200, json!({"id": 4, "epoch": 7})));
    for (id, body, because) in [
        (4, r#"{"epoch":6}"#, "does not own it under epoch 6"),
        (9, r#"{"epoch":1}"#, "does not own it under epoch 1"),
        (5, r#"{"epoch":2}"#, "it was not asked to"),
    ] {
        let (status, problem) = served.json(Method::POST, &release(id), body).await;
        assert_eq!((status, &problem["code"]), (409, &"TDM0712".into()), "{id} {body}");
        assert!(problem["because"].as_str().unwrap().contains(because), "{problem}");
        let what = format!("cannot take partition {id} of work as released");
        assert_eq!(problem["what"], what);
    }
    served.stop().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let (served, _seat) = serve_seat(Some(7), Limits::default()).await;
    for query in ["wait=soon", "wait=-1s", "wait=", "after=x", "until=8"] {
        let path = format!("{PATH}?{query}");
        let told = refused(&served, Method::GET, &path, "").await;
        assert_eq!(told, (400, "TDM0704".to_owned()), "{query}");
    }
    for (path, body) in [
        (format!("{PATH}/4/release"), "{}"),
        (format!("{PATH}/4/release"), r#"{"epoch":7,"all":true}"#),
        (format!("{PATH}/four/release"), r#"{"epoch":7}"#),
    ] {
        let (status, _) = refused(&served, Method::POST, &path, body).await;
        assert_eq!(status, 400, "{path} {body}");
    }
    served.stop().await;
}

#[tokio::test]
async fn a_node_without_a_copy_whose_work_is_divided_says_so() {
    let served = serve().await;
    let (asks, says) = ((Method::GET, ""), (Method::POST, r#"{"epoch":7}"#));
    for ((method, body), path) in [(asks, PATH.to_owned()), (says, format!("{PATH}/4/release"))] {
        let told = refused(&served, method, &path, body).await;
        assert_eq!(told, (404, "TDM0601".to_owned()), "{path}");
    }
    served.stop().await;
}

#[tokio::test]
async fn a_long_poll_takes_a_place_and_gives_it_back() {
    let limits = Limits { streams_max: 1, ..Limits::default() };
    let (served, seat) = serve_seat(Some(7), limits).await;
    let path = format!("{PATH}?after=7&wait=60s");
    let mut poll = Box::pin(timeout(PATIENCE, served.get(&path)));
    tokio::select! {
        biased;
        answer = &mut poll => panic!("nothing is new: {answer:?}"),
        () = seat.looked_at(1) => {}
    }
    let told = refused(&served, Method::GET, &path, "").await;
    assert_eq!(told, (503, "TDM0708".to_owned()));
    seat.tells(8);
    assert_eq!(poll.await.unwrap(), said(8));
    assert_eq!(served.get(PATH).await, said(8));
    served.stop().await;
}

#[tokio::test]
async fn a_node_that_stops_answers_who_waits() {
    let (served, seat) = serve_seat(Some(7), Limits::default()).await;
    let supervisor = served.supervisor.clone();
    let path = format!("{PATH}?after=7&wait=60s");
    let mut poll = Box::pin(timeout(PATIENCE, served.get(&path)));
    tokio::select! {
        biased;
        answer = &mut poll => panic!("nothing is new: {answer:?}"),
        () = seat.looked_at(1) => {}
    }
    let (answer, is_stopped) = tokio::join!(poll, supervisor.stop(PATIENCE));
    assert_eq!((answer.unwrap(), is_stopped), (said(7), true));
}
