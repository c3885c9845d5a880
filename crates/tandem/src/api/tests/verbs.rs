//! Verbs: what reaches the node, and what the asker is told.

use super::fake::{Fake, refusal};
use super::{PATIENCE, serve, serve_fake};
use crate::api::operations::{Outcome, Secret, Verb};
use crate::api::server::Limits;
use hyper::Method;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::ids::ConfigVersion;
use tokio::sync::Notify;

type Case = (Method, &'static str, &'static str, u16, Verb);

async fn reach(cases: Vec<Case>) {
    let served = serve().await;
    for (method, path, body, status, verb) in cases {
        let (got, answer) = served.json(method.clone(), path, body).await;
        assert_eq!(got, status, "{method} {path}: {answer}");
        assert_eq!(served.fake.asked.lock().unwrap().pop(), Some(verb));
        let progress = if status == 202 { "accepted" } else { "done" };
        assert_eq!(answer["progress"], progress);
    }
    served.stop().await;
}

/// What is done to the service `orders`.
fn on_service(verb: &'static str, body: &'static str, meant: Verb) -> Case {
    let path: &'static str = match verb {
        "failover" => "/v1/services/orders/failover",
        "pause" => "/v1/services/orders/pause",
        "resume" => "/v1/services/orders/resume",
        "reload" => "/v1/services/orders/reload",
        "restart" => "/v1/services/orders/restart",
        "reinit" => "/v1/services/orders/reinit",
        _ => "/v1/services/orders/switchover",
    };
    (Method::POST, path, body, 200, meant)
}

#[tokio::test]
async fn every_verb_on_a_service_reaches_the_node_as_it_was_meant() {
    let service = || "orders".into();
    let node = || "b".into();
    let path = "/v1/services/orders/switchover";
    let later = Verb::Switchover { service: service(), to: Some(node()), at_unix_ms: Some(5) };
    let now = Verb::Switchover { service: service(), to: None, at_unix_ms: None };
    let forced = Verb::Failover { service: service(), to: None, accept_loss: true };
    reach(vec![
        (Method::POST, path, r#"{"to":"b","at_unix_ms":5}"#, 202, later),
        (Method::DELETE, path, "", 200, Verb::CancelSwitchover { service: service() }),
        on_service("switchover", "", now),
        on_service("failover", r#"{"to":null,"accept_loss":true}"#, forced),
        on_service("pause", "{}", Verb::Pause { service: service() }),
        on_service("resume", "", Verb::Resume { service: service() }),
        on_service("reload", "", Verb::Reload { service: service() }),
        on_service(
            "restart",
            r#"{"node":"b"}"#,
            Verb::Restart { service: service(), node: Some(node()) },
        ),
        on_service("reinit", r#"{"node":"b"}"#, Verb::Reinit { service: service(), node: node() }),
    ])
    .await;
}

#[tokio::test]
async fn every_verb_on_the_cluster_reaches_the_node_as_it_was_meant() {
    let node = || "d".into();
    let member = r#"{"node":"d","address":"10.0.0.4:7400","witness":true}"#;
    let address = "10.0.0.4:7400".to_owned();
    let added = Verb::AddNode { node: node(), address, witness: true, zone: None };
    let applied = Verb::ApplyConfig { text: "x".into(), expected: Some(ConfigVersion(3)) };
    reach(vec![
        (Method::POST, "/v1/nodes/d/drain", "", 200, Verb::Drain { node: node() }),
        (Method::POST, "/v1/nodes/d/undrain", "", 200, Verb::Undrain { node: node() }),
        (Method::DELETE, "/v1/nodes/d", "", 200, Verb::RemoveNode { node: node() }),
        (Method::POST, "/v1/nodes", member, 200, added),
        (Method::PUT, "/v1/config", r#"{"text":"x","expected":3}"#, 200, applied),
        (Method::POST, "/v1/tokens", r#"{"node":"d"}"#, 200, Verb::MintToken { node: node() }),
    ])
    .await;
}

#[tokio::test]
async fn a_token_reaches_the_asker_and_no_log() {
    let served = serve().await;
    let (_, token) = served.json(Method::POST, "/v1/tokens", r#"{"node":"d"}"#).await;
    assert_eq!(token["token"], "t0ken");
    let outcome = Outcome::done("made").token(Secret::new("t0ken"));
    assert!(!format!("{outcome:?}").contains("t0ken"));
    served.stop().await;
}

#[tokio::test]
async fn a_refusal_keeps_its_words_and_its_status() {
    let served = serve().await;
    *served.fake.refuse.lock().unwrap() = Some(refusal());
    let path = "/v1/services/orders/switchover";
    let (status, problem) = served.json(Method::POST, path, "").await;
    assert_eq!(status, 409);
    assert_eq!(problem, serde_json::to_value(refusal()).unwrap());
    served.stop().await;
}

#[tokio::test]
async fn a_misspelt_field_is_not_ignored() {
    let served = serve().await;
    for (path, body) in [
        ("/v1/services/orders/failover", r#"{"acept_loss":true}"#),
        ("/v1/services/orders/switchover", r#"{"to":"#),
        ("/v1/services/orders/restart", r#"{"nod":"a"}"#),
        ("/v1/services/orders/pause", r#"{"for":"1h"}"#),
    ] {
        let (status, problem) = served.json(Method::POST, path, body).await;
        assert_eq!((status, &problem["code"]), (400, &"TDM0704".into()), "{path} {body}");
    }
    assert!(served.fake.asked.lock().unwrap().is_empty());
    served.stop().await;
}

#[tokio::test]
async fn a_verb_that_takes_too_long_goes_on_and_places_are_bounded() {
    let hold = Arc::new(Notify::new());
    let fake = Fake { hold: Some(hold.clone()), ..Fake::new() };
    let limits = Limits { verb: Duration::from_millis(50), verbs_max: 1, ..Limits::default() };
    let served = serve_fake(fake, limits).await;
    let path = "/v1/services/orders/pause";
    let (status, problem) = served.json(Method::POST, path, "").await;
    assert_eq!((status, &problem["code"]), (504, &"TDM0611".into()));
    let (status, problem) = served.json(Method::POST, path, "").await;
    assert_eq!((status, &problem["code"]), (503, &"TDM0708".into()));
    hold.notify_one();
    let freed = async {
        while served.json(Method::POST, path, "").await.0 == 503 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.unwrap();
    hold.notify_one();
    served.stop().await;
}
