//! Talks HTTP about errors: a `Problem` becomes JSON with the status of its code.
//! In: `Problem`. Out: `{"code","what","because","try"}` as `application/problem+json`.
//! Tested by: `tests/mod.rs`.

use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use axum::Json;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use tandem_core::ids::ServiceId;

/// A `Problem` on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection(pub Problem);

/// What a handler answers.
pub type Answer<T> = Result<T, Rejection>;

impl From<Problem> for Rejection {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let status = codes::entry(self.0.code).map_or(500, |entry| entry.http_status);
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self.0)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// There is no service of that name.
pub fn no_such_service(service: &ServiceId) -> Problem {
    Problem::new(
        codes::NO_SUCH_SERVICE,
        format!("cannot find service {service}"),
        "the agreed configuration has no service of that name",
        "tandem status lists the services",
    )
}
