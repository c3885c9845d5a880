//! What has the same key gets the same endpoint, what has none gets any.

use super::balancing::three;
use super::support::*;
use crate::proxy::balancer::{Balancer, BalancerConfig};
use std::collections::BTreeSet;
use tandem_core::clustering::load_balanced::balance::Policy;
use tandem_core::clustering::load_balanced::key::Source;

fn by(endpoints: &[&Endpoint], source: Source) -> BalancerConfig {
    BalancerConfig {
        policy: Policy::Hash,
        ..http(endpoints, |http| {
            http.hash_key = Some(source);
            http.trusted = vec!["127.0.0.0/8".parse().unwrap()];
        })
    }
}

async fn answers(balancer: &Balancer, path: &str, fields: &str, times: usize) -> BTreeSet<String> {
    let mut answers = BTreeSet::new();
    for _ in 0..times {
        let mut client = Client::connect(balancer).await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: shop\r\n{fields}\r\n")).await;
        answers.insert(client.response().await.unwrap().body);
    }
    answers
}

#[tokio::test]
async fn a_key_keeps_its_endpoint_on_every_node() {
    let (supervisor, endpoints) = three().await;
    let all: Vec<&Endpoint> = endpoints.iter().collect();
    let sources = [
        Source::Header("X-Shop".to_owned()),
        Source::Cookie("sid".to_owned()),
        Source::PathSegment(1),
        Source::Address,
    ];
    for source in sources {
        // The order of the list says nothing.
        let turned: Vec<&Endpoint> = all.iter().rev().copied().collect();
        let one = Balancer::open(by(&all, source.clone()), &supervisor).unwrap();
        let other = Balancer::open(by(&turned, source.clone()), &supervisor).unwrap();
        let mut used = BTreeSet::new();
        // So many that each of three has some, whatever their ports are.
        for key in 0..48 {
            let (path, fields) = match &source {
                Source::Header(name) => ("/".to_owned(), format!("{name}: {key}\r\n")),
                Source::Cookie(name) => ("/".to_owned(), format!("Cookie: {name}={key}\r\n")),
                Source::PathSegment(_) => (format!("/{key}/x"), String::new()),
                Source::Address => ("/".to_owned(), format!("X-Forwarded-For: 192.0.2.{key}\r\n")),
            };
            let mut found = answers(&one, &path, &fields, 3).await;
            found.append(&mut answers(&other, &path, &fields, 2).await);
            assert_eq!(found.len(), 1, "{source:?} {key}: {found:?}");
            used.append(&mut found);
        }
        assert_eq!(used.len(), 3, "{source:?}");
    }
}

#[tokio::test]
async fn what_has_no_key_is_spread() {
    let (supervisor, endpoints) = three().await;
    let all: Vec<&Endpoint> = endpoints.iter().collect();
    let source = Source::Header("X-Shop".to_owned());
    let balancer = Balancer::open(by(&all, source), &supervisor).unwrap();
    assert!(answers(&balancer, "/", "", 60).await.len() > 1);
    assert!(answers(&balancer, "/", "X-Shop: \r\n", 60).await.len() > 1, "empty is none");
}
