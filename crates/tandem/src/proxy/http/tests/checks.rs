//! Endpoints that are asked: what they answer decides whether they serve.

use super::support::*;
use crate::proxy::balancer::{Balancer, Check, Question};
use crate::proxy::http::HttpCheck;
use crate::runtime::supervisor::Supervisor;
use std::time::Duration;
use tandem_core::clustering::load_balanced::ejection::Condition;

#[tokio::test]
async fn an_endpoint_serves_while_it_answers_its_checks_as_it_should() {
    let supervisor = Supervisor::new();
    let endpoint = Endpoint::start(&supervisor, 'a').await;
    let mut config = config(&[&endpoint]);
    let (path, host) = ("/healthz?deep".to_owned(), Some("shop".to_owned()));
    config.question = Some(Question::Http(HttpCheck { path, host, expect: (200, 299) }));
    let interval = Duration::from_millis(20);
    config.check = Some(Check { interval, timeout: LIMIT });
    let balancer = Balancer::open(config.clone(), &supervisor).unwrap();
    let is = |condition: Condition| {
        let balancer = &balancer;
        until(move || balancer.snapshot().endpoints[0].condition == Some(condition))
    };
    is(Condition::Up).await;
    let asked = "GET /healthz?deep HTTP/1.1\r\nHost: shop\r\nUser-Agent: tandem-check\r\n";
    assert!(endpoint.bytes().starts_with(asked), "{}", endpoint.bytes());
    let answers = [
        ("/500", "/healthz?deep: 500"),
        ("/refuse", "/healthz?deep: 401"),
        ("/nonsense", "not understood"),
        ("/close", "closed the check"),
    ];
    for (bad, why) in answers {
        endpoint.always(bad);
        is(Condition::Down).await;
        until(|| {
            let failure = balancer.snapshot().endpoints[0].failure.clone().unwrap();
            failure.contains(why)
        })
        .await;
        endpoint.always("/hints");
        is(Condition::Up).await;
    }
    assert_eq!(get(&balancer, "/").await.status(), 103, "its hints are not its answer");
    config.question = None;
    endpoint.always("/500");
    balancer.configure(config).unwrap();
    let asked = endpoint.connections();
    until(|| endpoint.connections() > asked + 3).await;
    is(Condition::Up).await;
}
