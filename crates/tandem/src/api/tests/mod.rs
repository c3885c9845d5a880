//! The API against a made-up node, over real sockets on loopback.

mod events;
pub(crate) mod fake;
mod limits;
mod metrics;
mod partitions;
mod role;
mod status;
mod verbs;

use crate::api::server::{Limits, serve_within};
use crate::runtime::supervisor::Supervisor;
use bytes::Bytes;
use fake::Fake;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// No condition of a test takes longer, however busy the machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A served fake.
pub(crate) struct Served {
    pub(crate) fake: Arc<Fake>,
    pub(crate) address: SocketAddr,
    pub(crate) supervisor: Supervisor,
    client: Client<HttpConnector, Full<Bytes>>,
}

pub(crate) async fn serve() -> Served {
    serve_fake(Fake::new(), Limits::default()).await
}

pub(crate) async fn serve_fake(fake: Fake, limits: Limits) -> Served {
    let (fake, supervisor) = (Arc::new(fake), Supervisor::new());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let address = serve_within(limits, any, fake.clone(), supervisor.clone()).await.unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    Served { fake, address, supervisor, client }
}

impl Served {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response<hyper::body::Incoming> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
        tokio::time::timeout(PATIENCE, self.client.request(request)).await.unwrap().unwrap()
    }

    async fn json(&self, method: Method, path: &str, body: &str) -> (u16, Value) {
        let response = self.send(method, path, &[], body).await;
        let status = response.status().as_u16();
        (status, serde_json::from_str(&text(response).await).unwrap())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.json(Method::GET, path, "").await
    }

    async fn stop(self) {
        assert!(self.supervisor.stop(PATIENCE).await, "the API did not stop");
    }
}

async fn text(response: Response<hyper::body::Incoming>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn questions_are_answered() {
    let served = serve().await;
    let (status, explanation) = served.get("/v1/explain/orders").await;
    assert_eq!((status, &explanation["failover_now"]["safety"]), (200, &"safe".into()));
    assert_eq!(explanation["no_failover_because"][0]["numbers"]["lease_ms"], 1400);
    assert_eq!(explanation["history"][0]["cause"], "postmaster_died");
    let (status, one) = served.get("/v1/explain/work?partition=7").await;
    assert_eq!((status, &one["partition"], &one["state"]), (200, &7.into(), &"releasing".into()));
    let (_, one) = served.get("/v1/explain/work?key=shop%2017").await;
    assert_eq!((&one["key"], &one["waits_for"]), (&"shop 17".into(), &"a".into()));
    let (status, findings) = served.get("/v1/doctor").await;
    assert_eq!((status, &findings[1]["severity"]), (200, &"bad".into()));
    assert_eq!(findings[1]["try"], "add space");
    let (status, config) = served.get("/v1/config").await;
    assert_eq!((status, &config["version"]), (200, &3.into()));
    served.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_a_problem() {
    let served = serve().await;
    for (path, status, code) in [
        ("/v1/explain/nothing", 404, "TDM0601"),
        ("/v2/status", 404, "TDM0705"),
        ("/v1/services/orders/switchover", 405, "TDM0706"),
        ("/v1/events?from=1", 400, "TDM0704"),
        ("/v1/explain/work?partition=seven", 400, "TDM0704"),
        ("/v1/explain/work?partition=7&key=x", 400, "TDM0704"),
        ("/v1/explain/nothing?partition=7", 404, "TDM0601"),
    ] {
        let response = served.send(Method::GET, path, &[], "").await;
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{path}");
        assert_eq!(response.status(), status, "{path}");
        let problem: Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(problem["code"], code, "{path}");
        for part in ["what", "because", "try"] {
            assert!(problem[part].as_str().is_some_and(|text| !text.is_empty()), "{path}: {part}");
        }
    }
    served.stop().await;
}

#[tokio::test]
async fn a_busy_port_is_said_so() {
    let served = serve().await;
    let again = serve_within(
        Limits::default(),
        served.address,
        served.fake.clone(),
        served.supervisor.clone(),
    );
    let problem: crate::telemetry::problem::Problem = again.await.unwrap_err().into();
    assert_eq!(problem.code.to_string(), "TDM0104");
    assert!(problem.because.contains("in use"), "{problem}");
    served.stop().await;
}
