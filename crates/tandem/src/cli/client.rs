//! Talks to a node's API from the command line.
//! In: addresses, a question or a verb. Out: its answer, or a `Problem`: the node's own, or one
//! that says whether anything was sent at all.
//! The next address is tried only while nothing was sent, so a verb is never sent twice.
//! Not here: server-sent events (`stream.rs` reads them).
//! Tested by: `tests/`.

use crate::api::operations::Outcome;
use crate::cli::ask::stream::EventStream;
use crate::telemetry::codes;
use crate::telemetry::problem::{Problem, chain};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use hyper::{Method, Request, Response, Uri};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Write as _;
use std::time::Duration;

/// A node answers questions from memory.
const READ_WITHIN: Duration = Duration::from_secs(15);

/// Longer than the API's own limit, so that its answer arrives.
const OPERATE_WITHIN: Duration = Duration::from_secs(100);

/// A node that is there accepts at once.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// The largest answer; a thousand events with their fields are well below.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A node's API, at one of several addresses.
#[derive(Clone, Debug)]
pub struct Client {
    addresses: Vec<String>,
    http: HttpClient<HttpConnector, Full<Bytes>>,
}

impl Client {
    /// A client of these addresses, tried in turn.
    ///
    /// # Errors
    /// One of them is not an address.
    pub fn new(addresses: &[String]) -> Result<Self, Problem> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_WITHIN));
        connector.set_nodelay(true);
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .retry_canceled_requests(false)
            .build(connector);
        let addresses = addresses.iter().map(|text| address(text)).collect::<Result<_, _>>()?;
        Ok(Self { addresses, http })
    }

    /// Asks a question.
    ///
    /// # Errors
    /// The node's own problem, or why there was no answer.
    pub async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        let call =
            Call { method: Method::GET, path, body: Bytes::new(), accept: "application/json" };
        self.answer(&call, READ_WITHIN).await
    }

    /// Asks for a verb.
    ///
    /// # Errors
    /// The node's refusal, or why the outcome is not known.
    pub async fn operate(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Outcome, Problem> {
        let body = serde_json::to_vec(body).map_err(|error| {
            Problem::caused_by(codes::UNEXPECTED, "cannot write the request", &error, "report this")
        })?;
        let call = Call { method, path, body: body.into(), accept: "application/json" };
        self.answer(&call, OPERATE_WITHIN).await
    }

    /// Follows events after number `since`.
    ///
    /// # Errors
    /// The node's own problem, or why there was no answer.
    pub async fn follow(&self, since: u64) -> Result<EventStream, Problem> {
        let path = format!("/v1/events?since={since}");
        let call = Call {
            method: Method::GET,
            path: &path,
            body: Bytes::new(),
            accept: "text/event-stream",
        };
        let sending = self.send(&call);
        let (at, response) = tokio::time::timeout(READ_WITHIN, sending)
            .await
            .map_err(|_| lost(&call, "no answer came in time"))??;
        if response.status().is_success() {
            Ok(EventStream::new(response.into_body()))
        } else {
            Err(self.refusal(&at, response).await)
        }
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
        within: Duration,
    ) -> Result<T, Problem> {
        let asking = async {
            let (at, response) = self.send(call).await?;
            if !response.status().is_success() {
                return Err(self.refusal(&at, response).await);
            }
            let bytes = collect(response).await.map_err(|error| lost(call, error))?;
            serde_json::from_slice(&bytes).map_err(|error| strange(&at, error.to_string()))
        };
        tokio::time::timeout(within, asking)
            .await
            .unwrap_or_else(|_| Err(lost(call, "no answer came in time")))
    }

    async fn send(&self, call: &Call<'_>) -> Result<(String, Response<Incoming>), Problem> {
        let mut refused = String::new();
        for at in &self.addresses {
            let request = Request::builder()
                .method(call.method.clone())
                .uri(format!("{at}{}", call.path))
                .header(ACCEPT, call.accept)
                .header(CONTENT_TYPE, "application/json")
                .body(Full::new(call.body.clone()))
                .map_err(|error| not_an_address(at, &error.to_string()))?;
            match self.http.request(request).await {
                Ok(response) => return Ok((at.clone(), response)),
                Err(error) if error.is_connect() => {
                    let start = if refused.is_empty() { "" } else { "; " };
                    let _ = write!(refused, "{start}{at}: {}", chain(&error));
                }
                Err(error) => return Err(lost(call, chain(&error))),
            }
        }
        Err(unreachable(&refused))
    }

    async fn refusal(&self, at: &str, response: Response<Incoming>) -> Problem {
        let status = response.status();
        let bytes = collect(response).await.unwrap_or_default();
        serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| strange(at, format!("it answered {status} without saying why")))
    }
}

struct Call<'a> {
    method: Method,
    path: &'a str,
    body: Bytes,
    accept: &'static str,
}

async fn collect(response: Response<Incoming>) -> Result<Bytes, String> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    let collected = body.collect().await.map_err(|error| chain(error.as_ref()))?;
    Ok(collected.to_bytes())
}

/// A name as one part of a path.
pub fn segment(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

fn address(text: &str) -> Result<String, Problem> {
    let text = text.trim().trim_end_matches('/');
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = with_scheme
        .parse()
        .map_err(|error: hyper::http::uri::InvalidUri| not_an_address(text, &error.to_string()))?;
    if uri.scheme_str() != Some("http") {
        return Err(not_an_address(text, "only http is spoken; use the node's loopback address"));
    }
    if uri.host().is_none_or(str::is_empty) || uri.path() != "/" || uri.query().is_some() {
        return Err(not_an_address(text, "a host and a port are needed, and nothing more"));
    }
    Ok(with_scheme)
}

fn not_an_address(text: &str, because: &str) -> Problem {
    let what = format!("cannot use {text:?} as the API's address");
    Problem::new(codes::ARGUMENT, what, because, "--api http://127.0.0.1:7401")
}

fn unreachable(because: &str) -> Problem {
    Problem::new(
        codes::API_UNREACHABLE,
        "cannot reach a node's API",
        because,
        "run this on a node that is up, or name one: --api http://127.0.0.1:7401 (or TANDEM_API)",
    )
}

fn lost(call: &Call<'_>, because: impl Into<String>) -> Problem {
    let try_ = if call.method == Method::GET {
        "try again, or ask another node with --api"
    } else {
        "it may have been done: look at tandem status and tandem events before you repeat it"
    };
    Problem::new(codes::ANSWER_LOST, "the answer was lost", because, try_)
}

fn strange(at: &str, because: String) -> Problem {
    Problem::new(
        codes::ANSWER_NOT_UNDERSTOOD,
        format!("cannot understand what {at} answered"),
        because,
        "check that --api names a Tandem node of this version",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(address("127.0.0.1:7401").unwrap(), "http://127.0.0.1:7401");
        assert_eq!(address("http://[::1]:7401/").unwrap(), "http://[::1]:7401");
        for text in ["", "https://a:1", "http://a:1/v1", "http://a:1/?x", "a b", "://"] {
            assert_eq!(
                address(text).map_err(|problem| problem.code),
                Err(codes::ARGUMENT),
                "{text}"
            );
        }
    }

    #[test]
    fn names_stay_one_segment() {
        assert_eq!(segment("orders-1"), "orders-1");
        assert_eq!(segment("a/b?c é"), "a%2Fb%3Fc%20%C3%A9");
    }
}
