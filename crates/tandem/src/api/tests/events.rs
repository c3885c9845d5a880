//! Server-sent events: replay, order, bounds.

use super::fake::Fake;
use super::{PATIENCE, Served, serve, serve_fake, text};
use crate::api::server::Limits;
use crate::telemetry::event_kind::EventKind;
use crate::telemetry::events::{Draft, FOLLOWER_BEHIND_MAX};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{Method, Response};

fn record(served: &Served, count: usize) -> u64 {
    let draft = Draft::new(EventKind::RuleChanged, "another rule").service(&"orders".into());
    served.fake.log.record(draft.field("count", count))
}

/// Reads until the text holds `end`, or the stream ends.
async fn read_until(body: &mut Response<Incoming>, end: &str) -> String {
    let mut seen = String::new();
    let reading = async {
        while !seen.contains(end) {
            let Some(frame) = body.body_mut().frame().await else { break };
            seen.push_str(std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap();
    seen
}

fn ids(text: &str) -> Vec<u64> {
    text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect()
}

#[tokio::test]
async fn what_was_missed_is_replayed_and_what_comes_follows() {
    let served = serve().await;
    let kept: Vec<u64> = (0..3).map(|count| record(&served, count)).collect();
    let last_seen = kept[0].to_string();
    let headers = [("last-event-id", last_seen.as_str())];
    // The header is newer than the address: it counts.
    let mut stream = served.send(Method::GET, "/v1/events?since=0", &headers, "").await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let live = record(&served, 3);
    let seen = read_until(&mut stream, &format!("id: {live}\n")).await;
    assert_eq!(ids(&seen), [kept[1], kept[2], live]);
    assert!(seen.contains("event: rule.changed\n"), "{seen}");
    assert!(seen.contains("\"kind\":\"rule.changed\""), "{seen}");
    drop(stream);
    served.stop().await;
}

#[tokio::test]
async fn without_a_number_only_what_comes_is_sent_and_a_list_has_what_is_kept() {
    let served = serve().await;
    let kept = record(&served, 0);
    let mut stream = served.send(Method::GET, "/v1/events", &[], "").await;
    let live = record(&served, 1);
    assert_eq!(ids(&read_until(&mut stream, &format!("id: {live}\n")).await), [live]);
    let json = [("accept", "application/json")];
    let list = text(served.send(Method::GET, "/v1/events", &json, "").await).await;
    let list: Vec<serde_json::Value> = serde_json::from_str(&list).unwrap();
    assert_eq!(
        list.iter().map(|event| event["seq"].as_u64()).collect::<Vec<_>>(),
        [Some(kept), Some(live)]
    );
    served.stop().await;
}

#[tokio::test]
async fn a_number_that_is_none_is_refused() {
    let served = serve().await;
    let response = served.send(Method::GET, "/v1/events", &[("last-event-id", "x")], "").await;
    assert_eq!(response.status(), 400);
    served.stop().await;
}

#[tokio::test]
async fn streams_are_bounded_and_end_with_the_node() {
    let limits = Limits { streams_max: 1, ..Limits::default() };
    let served = serve_fake(Fake::new(), limits).await;
    let mut stream = served.send(Method::GET, "/v1/events", &[], "").await;
    let second = served.send(Method::GET, "/v1/events", &[], "").await;
    assert_eq!((second.status().as_u16(), &second.headers()["retry-after"] == "1"), (503, true));
    assert!(text(second).await.contains("TDM0708"));
    assert!(served.supervisor.stop(PATIENCE).await);
    assert_eq!(read_until(&mut stream, "never").await, "");
}

#[tokio::test]
async fn a_reader_that_falls_behind_is_told_and_dropped() {
    let served = serve().await;
    let mut stream = served.send(Method::GET, "/v1/events", &[], "").await;
    // Recorded in one go, without letting the stream run: more than it may be behind.
    for count in 0..FOLLOWER_BEHIND_MAX * 2 {
        record(&served, count);
    }
    let seen = read_until(&mut stream, "never").await;
    assert!(seen.contains(": too slow by"), "{seen}");
    served.stop().await;
}
