//! What endpoints do wrong, and who may be asked again.

use super::support::*;
use crate::proxy::balancer::Balancer;
use crate::runtime::supervisor::Supervisor;
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::Policy;
use tandem_core::clustering::load_balanced::ejection::Condition;
use tandem_core::clustering::load_balanced::key::Source;
use tandem_core::clustering::load_balanced::retry;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

pub async fn pair() -> (Supervisor, Endpoint, Endpoint) {
    let supervisor = Supervisor::new();
    let a = Endpoint::start(&supervisor, 'a').await;
    let b = Endpoint::start(&supervisor, 'b').await;
    (supervisor, a, b)
}

#[tokio::test]
async fn an_endpoint_that_breaks_costs_idempotent_requests_nothing() {
    let (supervisor, a, b) = pair().await;
    let balancer = Balancer::open(config(&[&a, &b]), &supervisor).unwrap();
    a.always("/reset");
    let mut client = Client::connect(&balancer).await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.unwrap().body, "b");
    }
    let snapshot = balancer.snapshot();
    assert!(matches!(snapshot.endpoints[0].condition, Some(Condition::Ejected(_))), "{snapshot:?}");
    assert_eq!(snapshot.http.unwrap().retried, 5);
    assert_eq!((snapshot.endpoints[0].retried, snapshot.endpoints[1].retried), (5, 0));
    assert_eq!(a.requests(), 5, "after that nobody asks it");
}

#[tokio::test]
async fn h43_what_may_have_been_done_is_not_done_again() {
    let (supervisor, a, b) = pair().await;
    let balancer = Balancer::open(config(&[&a, &b]), &supervisor).unwrap();
    a.always("/close");
    b.always("/close");
    let requests = [
        "POST / HTTP/1.1\r\nHost: shop\r\n\r\n",
        "PATCH / HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\n\r\nx",
        "GET / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    ];
    for request in requests {
        let mut client = Client::connect(&balancer).await;
        client.send(request).await;
        let response = client.response().await.unwrap();
        assert_eq!(response.status(), 502, "{response:?}");
        assert!(response.body.contains("endpoint of service web broke"), "{response:?}");
    }
    assert_eq!(a.requests() + b.requests(), requests.len());
    let http = balancer.snapshot().http.unwrap();
    assert_eq!((http.retried, http.broken), (0, 4));
    a.always("/half");
    b.always("/half");
    let mut client = Client::connect(&balancer).await;
    client.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let all = client.rest().await;
    assert!(all.ends_with("\r\n\r\nhalf"), "a client sees that it is not whole: {all}");
    assert_eq!(balancer.snapshot().http.unwrap().retried, 0);
}

#[tokio::test]
async fn an_idle_connection_that_was_closed_costs_nothing_and_is_no_fault() {
    let (supervisor, a, _) = pair().await;
    let balancer = Balancer::open(config(&[&a]), &supervisor).unwrap();
    for round in 1..5 {
        assert_eq!(get(&balancer, "/").await.body, "a");
        assert_eq!(a.connections(), round);
        // It answers, and closes without a word.
        a.always("/close");
        let mut client = Client::connect(&balancer).await;
        client.send("POST / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
        assert_eq!(client.response().await.unwrap().status(), 502);
        a.always("");
    }
    let snapshot = balancer.snapshot();
    assert_eq!(snapshot.endpoints[0].failed, 0, "{snapshot:?}");
}

#[tokio::test]
async fn when_all_fail_the_budget_ends_the_retries() {
    let (supervisor, a, b) = pair().await;
    let limits = retry::Limits { percent: 20, floor_per_second: 0 };
    let config = http(&[&a, &b], |http| http.retry = limits);
    let balancer = Balancer::open(config, &supervisor).unwrap();
    a.always("/reset");
    b.always("/reset");
    let mut client = Client::connect(&balancer).await;
    for _ in 0..100 {
        assert_eq!(client.get("/").await.unwrap().status(), 502);
    }
    let http = balancer.snapshot().http.unwrap();
    assert!((15..=20).contains(&http.retried) && http.over_budget >= 80, "{http:?}");
    assert!(a.requests() + b.requests() <= 120, "{}", a.requests() + b.requests());
}

#[tokio::test]
async fn who_fails_at_once_gets_no_more_than_its_share() {
    let (supervisor, a, b) = pair().await;
    let c = Endpoint::start(&supervisor, 'c').await;
    let mut config = config(&[&a, &b, &c]);
    config.policy = Policy::PeakEwma;
    let balancer = Balancer::open(config, &supervisor).unwrap();
    a.always("/reset");
    b.always("/reset");
    let mut client = Client::connect(&balancer).await;
    let mut served = 0;
    for _ in 0..200 {
        client.send("POST / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
        served += u32::from(client.response().await.unwrap().status() == 200);
    }
    assert!(served >= 67, "{served} of 200");
    a.always("/500");
    b.always("/500");
    let before = (a.requests(), b.requests());
    for _ in 0..100 {
        client.get("/").await.unwrap();
    }
    let failed = a.requests() - before.0 + b.requests() - before.1;
    assert!(failed <= 67, "{failed} of 100 to those that answer 500");
}

/// Nothing listens there, and nothing will.
pub fn dead() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn without_a_budget_a_connect_that_was_refused_is_still_tried_elsewhere() {
    let (supervisor, a, b) = pair().await;
    let none = retry::Limits { percent: 0, floor_per_second: 0 };
    let mut config = http(&[&a, &b], |http| http.retry = none);
    // The hash leads there again and again: nobody is ejected, nothing else is chosen.
    config.upstreams[0].port = dead().port();
    config.upstreams[0].weight = 1000;
    config.policy = Policy::Hash;
    config.limits.failures = 0;
    config.http.as_mut().unwrap().hash_key = Some(Source::Address);
    let balancer = Balancer::open(config, &supervisor).unwrap();
    for _ in 0..3 {
        assert_eq!(get(&balancer, "/").await.body, "b");
    }
    assert_eq!(balancer.snapshot().http.unwrap().over_budget, 3);
}

#[tokio::test]
async fn a_request_goes_to_no_endpoint_twice_and_to_three_at_most() {
    let supervisor = Supervisor::new();
    let mut endpoints = Vec::new();
    for letter in ['a', 'b', 'c', 'd', 'e'] {
        let endpoint = Endpoint::start(&supervisor, letter).await;
        endpoint.always("/reset");
        endpoints.push(endpoint);
    }
    let rich = retry::Limits { percent: 100, floor_per_second: 1000 };
    for (count, sent) in [(1, 1), (2, 2), (5, 3)] {
        let some: Vec<&Endpoint> = endpoints.iter().take(count).collect();
        let mut config = http(&some, |http| http.retry = rich);
        config.limits.failures = 0;
        let balancer = Balancer::open(config, &supervisor).unwrap();
        let all = || endpoints.iter().map(Endpoint::requests).collect::<Vec<usize>>();
        let before = all();
        assert_eq!(get(&balancer, "/").await.status(), 502);
        let got: Vec<usize> = all().iter().zip(before).map(|(now, before)| now - before).collect();
        assert!(got.iter().all(|got| *got <= 1), "{got:?}");
        assert_eq!(got.iter().sum::<usize>(), sent, "{got:?}");
        assert_eq!(balancer.snapshot().http.unwrap().broken, 1);
    }
}

#[tokio::test]
async fn a_timeout_on_a_connection_that_was_used_before_is_a_failure() {
    let (supervisor, a, _) = pair().await;
    let config = http(&[&a], |http| http.answer_timeout = Duration::from_millis(100));
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    assert_eq!(client.get("/").await.unwrap().status(), 200);
    assert_eq!(client.get("/never").await.unwrap().status(), 504);
    assert_eq!((a.connections(), balancer.snapshot().endpoints[0].failed), (1, 1));
}

#[tokio::test]
async fn requests_are_held_while_nobody_serves_and_told_when_it_was_in_vain() {
    let (supervisor, a, _) = pair().await;
    let mut config = config(&[&a]);
    config.hold_max = Duration::from_millis(300);
    let balancer = Balancer::open(config.clone(), &supervisor).unwrap();
    a.stop.cancel();
    until(|| std::net::TcpStream::connect(a.address).is_err()).await;
    let mut client = Client::connect(&balancer).await;
    let response = client.get("/").await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.head.contains("\r\nRetry-After: 1\r\n"), "{response:?}");
    assert!(response.body.contains("no endpoint of service web"), "{response:?}");
    config.hold_max = LIMIT;
    balancer.configure(config).unwrap();
    client.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    until(|| balancer.snapshot().held == 1).await;
    let mut left = Client::connect(&balancer).await;
    left.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    until(|| balancer.snapshot().held == 2).await;
    drop(left);
    until(|| balancer.snapshot().sessions == 1).await;
    let _back = Endpoint::at(&supervisor, 'z', a.address).await;
    assert_eq!(client.response().await.unwrap().body, "z");
    let http = balancer.snapshot().http.unwrap();
    assert_eq!((http.expired, http.abandoned), (1, 1));
}

#[tokio::test]
async fn an_endpoint_that_says_nothing_is_waited_for_only_so_long() {
    let (supervisor, a, _) = pair().await;
    let config = http(&[&a], |http| http.answer_timeout = Duration::from_millis(100));
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    let response = client.get("/never").await.unwrap();
    assert_eq!(response.status(), 504);
    assert_eq!(client.get("/").await.unwrap().body, "a", "the client may go on");
    let snapshot = balancer.snapshot();
    assert_eq!((snapshot.http.unwrap().timed_out, snapshot.endpoints[0].failed), (1, 1));
    let config = http(&[&a], |http| http.total_timeout = Some(Duration::from_millis(100)));
    let balancer = Balancer::open(config, &supervisor).unwrap();
    assert_eq!(get(&balancer, "/never").await.status(), 504);
    let snapshot = balancer.snapshot();
    assert_eq!((snapshot.http.unwrap().timed_out, snapshot.endpoints[0].failed), (1, 1));
}

/// What a request spent in line, or its client with its body, is no fault of the endpoint's.
#[tokio::test]
async fn time_that_an_endpoint_did_not_have_is_not_held_against_it() {
    let (supervisor, a, _) = pair().await;
    let config = http(&[&a], |http| http.total_timeout = Some(Duration::from_millis(400)));
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    client.send("POST /never HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n1").await;
    until(|| balancer.snapshot().endpoints[0].in_flight == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    client.send("2").await;
    assert_eq!(client.response().await.unwrap().status(), 504);
    let snapshot = balancer.snapshot();
    assert_eq!((snapshot.http.unwrap().timed_out, snapshot.endpoints[0].failed), (1, 0));
}

#[tokio::test]
async fn who_waits_for_leave_to_send_waits_for_its_endpoint() {
    let (supervisor, a, _) = pair().await;
    let config = http(&[&a], |http| http.answer_timeout = Duration::from_millis(100));
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    let head = "Host: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    client.send(format!("POST /deaf HTTP/1.1\r\n{head}")).await;
    assert_eq!(client.response().await.unwrap().status(), 504);
    assert_eq!(balancer.snapshot().endpoints[0].failed, 1);
}

#[tokio::test]
async fn what_is_no_answer_is_not_sent_on() {
    let (supervisor, a, _) = pair().await;
    let balancer = Balancer::open(config(&[&a]), &supervisor).unwrap();
    for verb in ["/nonsense", "/two-lengths", "/long-head"] {
        let response = get(&balancer, verb).await;
        assert_eq!(response.status(), 502, "{verb} {response:?}");
    }
    let mut client = Client::connect(&balancer).await;
    client.send("GET /hints-only HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let all = client.rest().await;
    assert!(all.contains("HTTP/1.1 502 Bad Gateway\r\n"), "{all}");
    // That its head is too long can be a client's doing, who asked for what is too long.
    assert_eq!(balancer.snapshot().endpoints[0].failed, 3);
}

#[tokio::test]
async fn who_gives_up_on_a_client_that_sends_no_more_is_not_at_fault() {
    let (supervisor, a, _) = pair().await;
    let config = http(&[&a], |http| http.head_timeout = Duration::from_millis(100));
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let waits = "Expect: 100-continue\r\n";
    // Whoever has all of it, or is asked for leave to send the rest, owes an answer.
    for (does, field, body, failed) in [
        ("/gives-up", "", "x", 0),
        ("/gives-up", "", "", 0),
        ("/close", "", "xx", 2),
        ("/gives-up", waits, "", 4),
    ] {
        a.always(does);
        for _ in 0..2 {
            let mut client = Client::connect(&balancer).await;
            let post = "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n";
            client.send(format!("{post}{field}\r\n{body}")).await;
            assert_eq!(client.response().await.unwrap().status(), 502);
        }
        assert_eq!(balancer.snapshot().endpoints[0].failed, failed, "{does} {field} {body}");
    }
}

#[tokio::test]
async fn who_drops_a_request_at_its_beginning_is_at_fault() {
    let (supervisor, a, _) = pair().await;
    let balancer = Balancer::open(config(&[&a]), &supervisor).unwrap();
    a.always("/drops");
    let mut client = Client::connect(&balancer).await;
    client.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nx").await;
    assert_eq!(client.response().await.unwrap().status(), 502);
    assert_eq!(balancer.snapshot().endpoints[0].failed, 1);
}

#[tokio::test]
async fn errors_count_unless_they_are_told_not_to() {
    let (supervisor, a, b) = pair().await;
    for (counts, ejected) in [(true, true), (false, false)] {
        let config = http(&[&a, &b], |http| http.errors_count = counts);
        let balancer = Balancer::open(config, &supervisor).unwrap();
        a.always("/500");
        let mut client = Client::connect(&balancer).await;
        for _ in 0..20 {
            client.get("/").await.unwrap();
        }
        let snapshot = balancer.snapshot();
        let is_ejected = matches!(snapshot.endpoints[0].condition, Some(Condition::Ejected(_)));
        assert_eq!(is_ejected, ejected, "{snapshot:?}");
        assert_eq!(snapshot.http.unwrap().statuses[4], if counts { 5 } else { 10 });
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_with_it() {
    let (supervisor, a, _) = pair().await;
    let balancer = Balancer::open(config(&[&a]), &supervisor).unwrap();
    let mut client = Client::connect(&balancer).await;
    client.send("GET /never HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    until(|| a.requests() == 1).await;
    drop(client);
    until(|| balancer.snapshot().endpoints[0].in_flight == 0).await;
    let mut client = Client::connect(&balancer).await;
    client.send("POST /echo HTTP/1.1\r\nHost: shop\r\nContent-Length: 9\r\n\r\nhalf").await;
    until(|| a.requests() == 2).await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, "");
    until(|| balancer.snapshot().sessions == 0).await;
    let snapshot = balancer.snapshot();
    assert_eq!(snapshot.http.unwrap().abandoned, 2);
    assert_eq!((snapshot.endpoints[0].failed, snapshot.endpoints[0].in_flight), (0, 0));
}

#[tokio::test]
async fn whoever_takes_nothing_or_streams_nothing_is_cut_and_no_endpoint_blamed() {
    let (supervisor, a, _) = pair().await;
    let mut config = config(&[&a]);
    config.idle_timeout = Duration::from_millis(100);
    let balancer = Balancer::open(config, &supervisor).unwrap();
    let mut deaf = Client::connect(&balancer).await;
    deaf.send("GET /big HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    until(|| balancer.snapshot().http.unwrap().abandoned == 1).await;
    let mut client = Client::connect(&balancer).await;
    client.send("GET /stall HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    assert!(client.rest().await.ends_with("\r\n\r\nhalf"));
    until(|| balancer.snapshot().sessions == 0).await;
    let snapshot = balancer.snapshot();
    assert_eq!(snapshot.http.unwrap().timed_out, 1);
    assert_eq!((snapshot.endpoints[0].failed, snapshot.endpoints[0].in_flight), (0, 0));
}

/// By latency alone all of them would go there: the other one is known to be slow.
#[tokio::test]
async fn an_endpoint_that_hangs_draws_a_few_clients_and_not_all() {
    let (supervisor, a, b) = pair().await;
    let with = |answer_timeout| {
        let mut config = http(&[&a, &b], |http| http.answer_timeout = answer_timeout);
        config.policy = Policy::PeakEwma;
        config
    };
    let balancer = Balancer::open(with(Duration::from_millis(100)), &supervisor).unwrap();
    b.always("/never");
    while get(&balancer, "/").await.status() != 504 {}
    b.always("");
    for _ in 0..10 {
        assert_eq!(get(&balancer, "/").await.body, "a", "it is known to be the quick one");
    }
    balancer.configure(with(LIMIT)).unwrap();
    a.always("/never");
    let (mut waiting, mut served) = (Vec::new(), 0);
    for _ in 0..10 {
        let mut client = Client::connect(&balancer).await;
        client.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
        match timeout(Duration::from_millis(50), client.response()).await {
            Ok(response) => served += u32::from(response.unwrap().body == "b"),
            Err(_) => waiting.push(client),
        }
    }
    assert!(waiting.len() <= 3 && served >= 7, "{} wait, {served} served", waiting.len());
}
