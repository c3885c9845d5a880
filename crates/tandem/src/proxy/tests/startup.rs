//! The first packets: bounded, refused with a reason, never a panic.

use super::fake::Fake;
use super::*;
use crate::proxy::Error;

#[tokio::test]
async fn garbage_closes_the_connection_and_nothing_else() {
    let supervisor = Supervisor::new();
    let fake = Fake::start(&supervisor).await;
    let stage = Stage::writing(routed(1, fake.address, "a"));
    let garbage: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\0\0\0\0",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"\0\0\x27\x15\0\x03\0\0",
    ];
    for bytes in garbage {
        let mut client = stage.client().await;
        client.send(bytes).await;
        assert!(client.message().await.is_none());
    }
    until(|| stage.door.counters().refused == 5).await;
    // A fixed sequence that looks like noise, cut at every length.
    let noise: Vec<u8> = (0..512u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for end in (0..noise.len()).step_by(7) {
        let mut client = stage.client().await;
        client.send(&noise[..end]).await;
    }
    stage.session("me").await.query("works").await.unwrap();
    assert_eq!(fake.users(), ["me"]);
}

#[tokio::test]
async fn old_protocols_and_malformed_packets_get_an_answer() {
    let stage = Stage::writing(Routes::default());
    for (bytes, code) in [
        (packet(131_072, b"user\0me\0\0"), "0A000"),
        (packet(196_608, b"user\0me"), "08P01"),
        (packet(80_877_103, b"more"), "08P01"),
    ] {
        let mut client = stage.client().await;
        client.send(&bytes).await;
        assert_eq!(client.end().await, code);
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed_in_time() {
    let short = Limits { startup: Duration::from_millis(50), ..limits() };
    let stage = Stage::open(config(Mode::Write), short, Routes::default());
    let mut silent = stage.client().await;
    let mut slow = stage.client().await;
    slow.send(&startup(&[("user", "me")])[..9]).await;
    assert!(silent.message().await.is_none());
    assert!(slow.message().await.is_none());
    until(|| stage.door.counters().refused == 2).await;
}

#[tokio::test]
async fn h13_lower_durability_is_refused_where_it_is_not_allowed() {
    let supervisor = Supervisor::new();
    let fake = Fake::start(&supervisor).await;
    let stage = Stage::writing(routed(1, fake.address, "a"));
    for (name, value) in [
        ("synchronous_commit", "local"),
        ("options", "-c geqo=off --synchronous-commit=off"),
        ("client_min_messages", "error"),
        ("options", "-c client_min_messages=error"),
    ] {
        let mut client = stage.client().await;
        client.send(&startup(&[("user", "me"), (name, value)])).await;
        let (_, body) = client.message().await.unwrap();
        assert_eq!(sqlstate(&body), "22023");
        assert!(field(&body, b'M').contains("does not allow "));
        let advice = if value.ends_with("error") {
            "Set client_min_messages to warning or lower, or remove it from "
        } else {
            "Set synchronous_commit to on or remote_apply, or remove it from "
        };
        assert!(field(&body, b'H').starts_with(advice), "{}", field(&body, b'H'));
    }
    assert!(fake.users().is_empty());
    let allowed = DoorConfig { refuse_lower_durability: false, ..config(Mode::Write) };
    let stage = Stage::open(allowed, limits(), routed(1, fake.address, "a"));
    let mut client = stage.client().await;
    client.send(&startup(&[("user", "me"), ("synchronous_commit", "off")])).await;
    client.until_ready().await.unwrap();
}

#[tokio::test]
async fn beyond_the_limit_of_sessions_a_client_is_told() {
    let supervisor = Supervisor::new();
    let fake = Fake::start(&supervisor).await;
    let one = DoorConfig { sessions_max: 1, ..config(Mode::Write) };
    let few = Limits { startups_max: 1, ..limits() };
    let stage = Stage::open(one, few, routed(1, fake.address, "a"));
    let first = stage.session("first").await;
    assert_eq!(stage.asking("second").await.end().await, "53300");
    let _startup = stage.client().await;
    until(|| stage.door.counters().accepted == 3).await;
    assert!(stage.client().await.message().await.is_none(), "closed as it came");
    drop(first);
    until(|| stage.door.counters().sessions == 0).await;
    stage.session("next").await;
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_an_error_that_helps() {
    let taken = Stage::writing(Routes::default());
    let (_sender, routes) = watch::channel(Arc::new(Routes::default()));
    let mut both = config(Mode::Write);
    both.listen.push(taken.address());
    let opened = Door::open(both, routes.clone(), Supervisor::new()).await;
    let error = opened.expect_err("the port is taken");
    assert!(matches!(&error, Error::Listen { address, .. } if *address == taken.address()));
    assert!(error.to_string().contains("stop what uses this one"), "{error}");
    let none = DoorConfig { listen: Vec::new(), ..config(Mode::Write) };
    let opened = Door::open(none, routes, Supervisor::new()).await;
    assert!(matches!(opened, Err(Error::NoAddress { .. })));
}
