//! Talks to requests that carry something: reads a bounded body in bounded time.
//! In: bytes. Out: a value, or a `Problem` that says where it cannot be understood.
//! A web page of another origin must not operate a cluster through its reader's browser: what it
//! sends carries an `Origin`, and is refused.
//! Tested by: `tests/limits.rs`.

use crate::api::Shared;
use crate::api::problem::Rejection;
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use axum::body::{Body, to_bytes};
use axum::extract::{self, FromRequest, FromRequestParts, Query, Request};
use axum::http::header::{HOST, HeaderMap, ORIGIN};
use axum::http::{Method, request::Parts};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use std::net::IpAddr;

/// The largest body; a configuration file is the largest thing anybody sends.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// A body in JSON; an empty one counts as `{}`.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Shared> for JsonBody<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, shared: &Shared) -> Result<Self, Rejection> {
        let reading = read(request.into_body());
        let bytes = tokio::time::timeout(shared.limits.body_read, reading)
            .await
            .map_err(|_| Rejection(too_slow()))??;
        let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(bytes).map(Self).map_err(|error| {
            bad("cannot read the body", error.to_string(), "correct the JSON body").into()
        })
    }
}

async fn read(body: Body) -> Result<axum::body::Bytes, Rejection> {
    to_bytes(body, BODY_BYTES_MAX).await.map_err(|error| {
        let problem = Problem::caused_by(
            codes::BODY_TOO_LARGE,
            "cannot read the body",
            &error,
            format!("send at most {BODY_BYTES_MAX} bytes"),
        );
        Rejection(problem)
    })
}

fn too_slow() -> Problem {
    Problem::new(
        codes::REQUEST_TOO_SLOW,
        "cannot read the body",
        "it did not arrive in time",
        "send it again",
    )
}

/// A request that cannot be understood.
pub(crate) fn bad(what: &str, because: impl Into<String>, try_: &str) -> Problem {
    Problem::new(codes::BAD_REQUEST, what, because, try_)
}

/// The parameters after the question mark.
#[derive(Debug)]
pub(crate) struct Parameters<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<Shared> for Parameters<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Rejection> {
        let query = Query::<T>::from_request_parts(parts, shared).await;
        query.map(|Query(value)| Self(value)).map_err(|error| {
            bad("cannot read the parameters", error.body_text(), "correct what follows the ?")
                .into()
        })
    }
}

/// What stands in the path: as axum's, with our own refusals.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Shared> for Path<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Rejection> {
        let path = extract::Path::<T>::from_request_parts(parts, shared).await;
        path.map(|extract::Path(value)| Self(value)).map_err(|error| {
            bad("cannot read the path", error.body_text(), "docs/operating/api.md lists every path")
                .into()
        })
    }
}

/// Refuses whatever changes something and was sent by a web page of elsewhere, or of a name that
/// was made to point here (DNS rebinding).
pub(crate) async fn refuse_foreign_pages(request: Request, next: Next) -> Response {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if changes && !is_own_page(request.headers()) {
        let problem = Problem::new(
            codes::FOREIGN_ORIGIN,
            "cannot do that for a web page",
            "the request carries the origin of a page that is not of this address",
            "use the command line, or a program that sends no Origin",
        );
        return Rejection(problem).into_response();
    }
    next.run(request).await
}

fn is_own_page(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(ORIGIN) else {
        return true;
    };
    let text = |value: &axum::http::HeaderValue| value.to_str().ok().map(str::to_owned);
    let (Some(origin), Some(host)) = (text(origin), headers.get(HOST).and_then(text)) else {
        return false;
    };
    let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
    let is_literal = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() || name == "localhost";
    is_literal && [format!("http://{host}"), format!("https://{host}")].contains(&origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        is_own_page(&headers)
    }

    #[test]
    fn pages_of_elsewhere_are_told_apart() {
        assert!(own("127.0.0.1:7401", None));
        assert!(own("127.0.0.1:7401", Some("http://127.0.0.1:7401")));
        assert!(own("[::1]:7401", Some("http://[::1]:7401")));
        assert!(own("localhost:7401", Some("http://localhost:7401")));
        assert!(!own("127.0.0.1:7401", Some("http://evil.example")));
        assert!(!own("127.0.0.1:7401", Some("null")));
        assert!(!own("evil.example:7401", Some("http://evil.example:7401")));
    }
}
