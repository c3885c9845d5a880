//! Role checks as load balancers send them.

use super::fake::replica;
use super::{serve, text};
use crate::api::status::InstanceState;
use hyper::Method;

#[tokio::test]
async fn a_primary_answers_200_under_every_name() {
    let served = serve().await;
    for name in ["primary", "master", "read-write", "leader", "read-only", "health", "readiness"] {
        for path in [format!("/{name}"), format!("/orders/{name}")] {
            let (status, body) = served.get(&path).await;
            assert_eq!((status, &body["role"]), (200, &"primary".into()), "{path}");
        }
    }
    assert_eq!(served.get("/replica").await.0, 503);
    let (status, body) = served.get("/other/primary").await;
    assert_eq!((status, &body["reason"]), (503, &"no such service".into()));
    served.stop().await;
}

#[tokio::test]
async fn a_replica_counts_only_while_it_is_fresh_enough() {
    let served = serve().await;
    *served.fake.role.lock().unwrap() = replica(Some(16 << 20));
    for (path, status) in [
        ("/primary", 503),
        ("/replica", 200),
        ("/replica?lag=16MB", 200),
        ("/replica?lag=16777215", 503),
        ("/read-only?lag=1kB", 503),
        ("/health", 200),
        ("/replica?lag=much", 400),
    ] {
        assert_eq!(served.get(path).await.0, status, "{path}");
    }
    *served.fake.role.lock().unwrap() = replica(None);
    assert_eq!(served.get("/replica?lag=1TB").await.0, 503, "H41: not known is not fresh");
    served.stop().await;
}

#[tokio::test]
async fn h41_a_primary_without_a_lease_is_none() {
    let served = serve().await;
    {
        let mut role = served.fake.role.lock().unwrap();
        role.serves = false;
        role.state = InstanceState::Stopping;
    }
    assert_eq!(served.get("/primary").await.0, 503);
    assert_eq!(served.get("/liveness").await.0, 200);
    served.stop().await;
}

#[tokio::test]
async fn head_and_options_have_the_status_and_no_body() {
    let served = serve().await;
    for method in [Method::HEAD, Method::OPTIONS] {
        for (path, status) in [("/primary", 200), ("/replica", 503)] {
            let response = served.send(method.clone(), path, &[], "").await;
            assert_eq!(response.status().as_u16(), status, "{method} {path}");
            assert_eq!(text(response).await, "", "{method} {path}");
        }
    }
    served.stop().await;
}
