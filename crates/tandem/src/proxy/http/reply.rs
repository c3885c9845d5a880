//! Writes the responses that are the balancer's own: why a request was not served.
//! In: what happened. Out: a head and a body that a person can read.
//! Keeps: nothing of what the client sent, and no address of an endpoint, is in them.
//! Not here: how they leave (`session.rs`).
//! Tested by: `tests/`.

use super::key::Doubt;
use super::wire::request::Refusal;
use crate::proxy::balancer::member::leaving::Over;
use std::io::Write;
use std::time::Duration;
use tandem_core::clustering::load_balanced::key::Source;
use tandem_core::ids::ServiceId;

/// Why a request that was understood has no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No endpoint took it within this time.
    Expired(Duration),
    /// No endpoint had taken it when it had lasted for as long as it may.
    Unserved(Duration),
    /// All endpoints are full, and more requests wait for them than may.
    Crowded,
    /// The balancer is about to close.
    Closing,
    /// Its endpoint gets no more work, and had time enough to end what it has; or is gone. It may
    /// have done this.
    Cut(Over),
    /// Its endpoint closed the connection.
    Broken,
    /// Its endpoint did nothing with it, and nobody else can have it: some of its body is gone.
    Declined,
    /// Its endpoint answered what is no HTTP, and why.
    Nonsense(&'static str),
    /// Its endpoint answered nothing in time.
    Late,
    /// It does not say to which partition it belongs, which is said by this.
    NoKey(Option<Source>),
    /// It says that in a way that its owner could read otherwise.
    TwoKeys(Option<Source>, Doubt),
    /// Nobody took what belongs to this partition within this time.
    Unowned(u32, Duration),
    /// Its client asks for more than it may; not before this time has passed.
    Limited(Duration),
}

/// How a reply goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manner {
    pub(super) keep_alive: bool,
    /// The request was a HEAD.
    pub(super) is_head: bool,
    /// The client speaks HTTP/1.0.
    pub(super) is_old: bool,
}

/// Writes why a request is refused; the connection ends after it.
pub(super) fn refusal(out: &mut Vec<u8>, refusal: Refusal) -> u16 {
    let (status, reason, why) = match refusal {
        Refusal::Bad(why) => (400, "Bad Request", why),
        Refusal::Tunnel => (405, "Method Not Allowed", "tunnels by CONNECT are not made here"),
        Refusal::TooSlow => (408, "Request Timeout", "the request did not come whole in time"),
        Refusal::BodyTooLong => (413, "Content Too Large", "the body is longer than may be"),
        Refusal::Expectation => (417, "Expectation Failed", "only 100-continue can be expected"),
        Refusal::HeadTooLong => {
            (431, "Request Header Fields Too Large", "the head is longer than may be")
        }
        Refusal::Version => (505, "HTTP Version Not Supported", "only HTTP/1.0 and 1.1 are spoken"),
    };
    let more =
        if status == 405 { "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n" } else { "" };
    let manner = Manner { keep_alive: false, is_head: false, is_old: false };
    write(out, (status, reason), more, (why, manner));
    status
}

/// Writes why a request has no response.
pub(super) fn failure(
    out: &mut Vec<u8>,
    failure: Failure,
    service: &ServiceId,
    manner: Manner,
) -> u16 {
    let (status, reason, why) = match failure {
        Failure::Expired(waited) => (
            503,
            "Service Unavailable",
            format!("no endpoint of service {service} took the request within {waited:?}"),
        ),
        Failure::Unserved(waited) => (
            504,
            "Gateway Timeout",
            format!("no endpoint of service {service} had taken the request after {waited:.1?}"),
        ),
        Failure::Crowded => (
            503,
            "Service Unavailable",
            format!("as many requests wait for service {service} as may"),
        ),
        Failure::Closing => {
            (503, "Service Unavailable", format!("this door of service {service} is closing"))
        }
        Failure::Cut(why) => (504, "Gateway Timeout", cut(service, why)),
        Failure::Broken => {
            (502, "Bad Gateway", format!("the endpoint of service {service} broke the connection"))
        }
        Failure::Declined => (
            503,
            "Service Unavailable",
            format!("the endpoint of service {service} did nothing with the request"),
        ),
        Failure::Nonsense(why) => (
            502,
            "Bad Gateway",
            format!("the endpoint of service {service} is not understood: {why}"),
        ),
        Failure::Late => (
            504,
            "Gateway Timeout",
            format!("the endpoint of service {service} did not answer in time"),
        ),
        Failure::NoKey(ref key) => (400, "Bad Request", no_key(service, key.as_ref())),
        Failure::TwoKeys(ref key, doubt) => {
            (400, "Bad Request", two_keys(service, (key.as_ref(), doubt)))
        }
        Failure::Unowned(partition, waited) => (
            503,
            "Service Unavailable",
            format!(
                "no copy of service {service} that owns partition {partition} took the request \
                 within {waited:?}: it moves, or its owner is lost"
            ),
        ),
        Failure::Limited(_) => (
            429,
            "Too Many Requests",
            format!("these are more requests than service {service} takes in so short a time"),
        ),
    };
    // Long enough that clients do not come back together at once, short for a failover.
    let retry_after = match failure {
        Failure::Limited(wait) => Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)),
        _ => (status == 503).then_some(1),
    };
    let more = retry_after.map_or_else(String::new, |after| format!("Retry-After: {after}\r\n"));
    write(out, (status, reason), &more, (&why, manner));
    status
}

/// Says why nobody waits for an answer any more.
fn cut(service: &ServiceId, why: Over) -> String {
    match why {
        Over::Late => {
            format!("the endpoint of service {service} was taken out before it had answered")
        }
        Over::Gone => {
            format!("the copy of service {service} that had the request is lost without an answer")
        }
    }
}

/// Where a key stands, in words.
fn place(key: Option<&Source>) -> String {
    match key {
        Some(Source::Header(name)) => format!("the header {name}"),
        Some(Source::Cookie(name)) => format!("the cookie {name}"),
        Some(Source::PathSegment(place)) => format!("segment {place} of its path"),
        Some(Source::Address) | None => "the address of its client".to_owned(),
    }
}

/// Says what a request says twice.
fn two_keys(service: &ServiceId, (key, doubt): (Option<&Source>, Doubt)) -> String {
    let part = place(key);
    let (why, instead) = match doubt {
        Doubt::Twice => (format!("{part} is there twice"), "send it once"),
        Doubt::Dropped => {
            (format!("Connection takes {part} out on the way"), "send it, and do not name it there")
        }
    };
    format!(
        "whoever gets this for service {service} could take it for another key than this door \
         did, because {why}: {instead}"
    )
}

/// Says what a request has to say.
fn no_key(service: &ServiceId, key: Option<&Source>) -> String {
    let part = place(key);
    format!(
        "nobody knows who of service {service} this is for, because the request has no key: send \
         {part}, and not empty"
    )
}

fn write(
    out: &mut Vec<u8>,
    (status, reason): (u16, &str),
    more: &str,
    (why, manner): (&str, Manner),
) {
    let connection = match manner {
        Manner { keep_alive: false, .. } => "Connection: close\r\n",
        Manner { is_old: true, .. } => "Connection: keep-alive\r\n",
        _ => "",
    };
    // The status line is in the body as well: a person sees only that.
    let length = why.len() + reason.len() + 7;
    let _ = write!(
        out,
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nCache-Control: no-store\r\n{more}{connection}\r\n"
    );
    if !manner.is_head {
        let _ = writeln!(out, "{status} {reason}: {why}");
    }
}
