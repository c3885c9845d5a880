//! Verbs: what reaches the node, and what the asker is told.

use super::fake::{Fake, refusal};
use super::{PATIENCE, serve, serve_fake};
use crate::api::operations::Verb;
use crate::api::server::Limits;
use hyper::Method;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

#[tokio::test]
async fn every_verb_reaches_the_node_as_it_was_meant() {
    let served = serve().await;
    let (post, put, delete) = (Method::POST, Method::PUT, Method::DELETE);
    let service = || "orders".into();
    let cases = [
        (
            &post,
            "/v1/services/orders/switchover",
            r#"{"to":"b","at_unix_ms":5}"#,
            202,
            Verb::Switchover { service: service(), to: Some("b".into()), at_unix_ms: Some(5) },
        ),
        (
            &post,
            "/v1/services/orders/switchover",
            "",
            200,
            Verb::Switchover { service: service(), to: None, at_unix_ms: None },
        ),
        (
            &delete,
            "/v1/services/orders/switchover",
            "",
            200,
            Verb::CancelSwitchover { service: service() },
        ),
        (
            &post,
            "/v1/services/orders/failover",
            r#"{"to":null,"accept_loss":true}"#,
            200,
            Verb::Failover { service: service(), to: None, accept_loss: true },
        ),
        (&post, "/v1/services/orders/pause", "{}", 200, Verb::Pause { service: service() }),
        (&post, "/v1/services/orders/resume", "", 200, Verb::Resume { service: service() }),
        (&post, "/v1/services/orders/reload", "", 200, Verb::Reload { service: service() }),
        (
            &post,
            "/v1/services/orders/restart",
            r#"{"node":"b"}"#,
            200,
            Verb::Restart { service: service(), node: "b".into() },
        ),
        (
            &post,
            "/v1/services/orders/reinit",
            r#"{"node":"b"}"#,
            200,
            Verb::Reinit { service: service(), node: "b".into() },
        ),
        (&post, "/v1/nodes/c/drain", "", 200, Verb::Drain { node: "c".into() }),
        (&post, "/v1/nodes/c/undrain", "", 200, Verb::Undrain { node: "c".into() }),
        (&delete, "/v1/nodes/c", "", 200, Verb::RemoveNode { node: "c".into() }),
        (
            &post,
            "/v1/nodes",
            r#"{"node":"d","address":"10.0.0.4:7400","witness":true}"#,
            200,
            Verb::AddNode {
                node: "d".into(),
                address: "10.0.0.4:7400".into(),
                witness: true,
                zone: None,
            },
        ),
        (
            &put,
            "/v1/config",
            r#"{"text":"x","expected":3}"#,
            200,
            Verb::ApplyConfig {
                text: "x".into(),
                expected: Some(tandem_core::ids::ConfigVersion(3)),
            },
        ),
        (&post, "/v1/tokens", r#"{"node":"d"}"#, 200, Verb::MintToken { node: "d".into() }),
    ];
    for (method, path, body, status, verb) in cases {
        let (got, answer) = served.json(method.clone(), path, body).await;
        assert_eq!(got, status, "{method} {path}: {answer}");
        assert_eq!(served.fake.asked.lock().unwrap().pop(), Some(verb));
        let progress = if status == 202 { "accepted" } else { "done" };
        assert_eq!(answer["progress"], progress);
    }
    let (_, token) = served.json(Method::POST, "/v1/tokens", r#"{"node":"d"}"#).await;
    assert_eq!(token["token"], "t0ken");
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
        ("/v1/services/orders/restart", "{}"),
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
