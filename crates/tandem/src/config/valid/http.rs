//! Decides whether what only a service of kind http has can be run as written.
//! In: the written keys. Out: `Http`.
//! Not here: endpoints, checks and ejection (`balanced.rs`).
//! Tested by: `config/tests/http.rs`.

use super::balanced::number;
use super::checker::{Checker, Limits, Span};
use super::key;
use super::upstream_tls::{self, UpstreamProtocol};
use crate::config::problem::{Code, Say};
use crate::config::raw::{self, Switch};
use crate::config::value::{self, Unreadable};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::Policy;
use tandem_core::clustering::load_balanced::key::Source;
use tandem_core::clustering::load_balanced::retry;

/// What a service has that balances requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// For a head to come whole.
    pub head_timeout: Duration,
    /// How long a client may keep its connection open without a request.
    pub keep_alive: Duration,
    /// From the end of a request to the head of its response.
    pub answer_timeout: Duration,
    /// For a request and its response in all; none: no bound.
    pub total_timeout: Option<Duration>,
    /// The longest head.
    pub head_bytes_max: u64,
    /// The most fields in a head.
    pub fields_max: usize,
    /// The longest body of a request.
    pub body_bytes_max: u64,
    /// Requests in flight per endpoint; none: no bound.
    pub in_flight_max: Option<u32>,
    /// Idle connections kept per endpoint.
    pub upstream_idle_max: usize,
    /// For how long.
    pub upstream_idle_timeout: Duration,
    /// Clients that may say who their own clients are, as written.
    pub trusted: Vec<String>,
    /// The cookie that keeps a client at its endpoint.
    pub sticky: Option<String>,
    /// What endpoints are spoken to.
    pub upstream_protocol: UpstreamProtocol,
    /// Clients may speak HTTP/2.
    pub http2: bool,
    /// What clients are shown; none: they speak in clear.
    pub certificates: Vec<Certificate>,
    /// How many requests may be sent again; none: no budget, so none is.
    pub retry: Option<retry::Limits>,
    /// A status of 500 or more counts as failed work.
    pub errors_count: bool,
    /// What of a request is its key; there with `balance = "hash"` only.
    pub hash_key: Option<Source>,
}

/// The files of one certificate, on every node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate, then those up to its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What a check asks, and which answers are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The path, with its query.
    pub path: String,
    /// The field `Host`; none: the endpoint's own address.
    pub host: Option<String>,
    /// The lowest and the highest status that is good.
    pub expect: (u16, u16),
}

const HEAD_BYTES: u64 = 32 << 10;
const BODY_BYTES: u64 = 1 << 30;
/// What the parser has room for.
const FIELDS: Limits = Limits {
    range: 8..=128,
    default: 100,
    example: None,
    because: "browsers send about 20, and each one costs time before anything is decided",
};
const IN_FLIGHT: Limits = Limits {
    range: 1..=1_000_000,
    default: 0,
    example: None,
    because: "an endpoint that may have none does no work; to give it none, write drain = true",
};
const IDLE_CONNECTIONS: Limits = Limits {
    range: 0..=10_000,
    default: 64,
    example: None,
    because: "each one is a socket here and at the endpoint",
};
const PERCENT: Limits =
    Limits { range: 0..=100, default: 20, example: None, because: "it is a percentage" };
const PER_SECOND: Limits = Limits {
    range: 0..=10_000,
    default: 10,
    example: None,
    because: "more would be a load of its own where everything fails",
};
pub(super) const IDLE: Span = Span {
    range: Duration::from_secs(1)..=Duration::from_secs(86_400),
    default: Duration::from_secs(60),
    because: "less cuts who is only slow, more keeps what is dead",
};
const HEAD: Span = Span {
    range: Duration::from_millis(100)..=Duration::from_secs(600),
    default: Duration::from_secs(10),
    because: "a head is one packet or a few: who takes longer drips it",
};
const ANSWER: Span = Span {
    range: Duration::from_millis(100)..=Duration::from_secs(86_400),
    default: Duration::from_secs(60),
    because: "an endpoint may think for so long before it counts as failed",
};
const KEPT: Span = Span {
    range: Duration::from_millis(100)..=Duration::from_secs(3600),
    default: Duration::from_secs(4),
    because: "it has to be less than what the endpoints themselves keep idle connections for",
};

pub(super) fn check(
    http: &raw::Http,
    service: &raw::Balanced,
    usual: Policy,
    check: &mut Checker<'_, '_>,
) -> Http {
    let path = |key: &str| format!("services.{}.{key}", service.name.get_ref());
    let mut duration = |key: &str, written: &raw::Text, span: &Span| {
        check.duration(&path(key), written.as_ref(), span)
    };
    let head_timeout = duration("head_timeout", &http.head_timeout, &HEAD);
    let keep_alive = duration("keep_alive", &http.keep_alive, &IDLE);
    let answer_timeout = duration("answer_timeout", &http.answer_timeout, &ANSWER);
    let total = duration("total_timeout", &http.total_timeout, &ANSWER);
    let upstream_idle_timeout =
        duration("upstream_idle_timeout", &http.upstream_idle_timeout, &KEPT);
    let mut count = |key: &str, written: &raw::Number, limits: &Limits| {
        number(check.number(&path(key), written.as_ref(), limits))
    };
    let fields_max = count("fields_max", &http.fields_max, &FIELDS);
    let in_flight_max = count("in_flight_max", &http.in_flight_max, &IN_FLIGHT);
    let idle_max = count("upstream_idle_max", &http.upstream_idle_max, &IDLE_CONNECTIONS);
    let head = check.read(&path("head_max"), http.head_max.as_ref(), head_bytes);
    let body = check.read(&path("body_max"), http.body_max.as_ref(), value::bytes);
    let sticky = check.read(&path("sticky"), http.sticky.as_ref(), cookie);
    let trusted = http.trusted.iter();
    let trusted = trusted.filter_map(|it| check.read(&path("trusted"), Some(it), network));
    let trusted = trusted.collect();
    let errors = match &service.ejection {
        Switch::On(ejection) => ejection.errors.as_ref().is_none_or(|errors| *errors.get_ref()),
        Switch::Unwritten => true,
        Switch::Off => false,
    };
    Http {
        head_timeout,
        keep_alive,
        answer_timeout,
        total_timeout: http.total_timeout.is_some().then_some(total),
        head_bytes_max: head.unwrap_or(HEAD_BYTES),
        fields_max: fields_max as usize,
        body_bytes_max: body.unwrap_or(BODY_BYTES),
        in_flight_max: (in_flight_max > 0).then_some(in_flight_max),
        upstream_idle_max: idle_max as usize,
        upstream_idle_timeout,
        trusted,
        sticky,
        http2: http.http2.as_ref().is_none_or(|written| *written.get_ref()),
        certificates: certificates(service, check),
        retry: retry(http, service, check),
        errors_count: errors,
        upstream_protocol: upstream_tls::protocol(http, service, check),
        hash_key: hash_key(http, service, usual, check),
    }
}

fn hash_key(
    http: &raw::Http,
    service: &raw::Balanced,
    usual: Policy,
    check: &mut Checker<'_, '_>,
) -> Option<Source> {
    let path = format!("services.{}.hash_key", service.name.get_ref());
    let key = key::check(&path, &http.hash_key, check);
    let written = service.balance.as_ref();
    let policy = written.map_or(Some(usual), |word| Policy::from_word(word.get_ref()));
    if policy == Some(Policy::Hash) {
        return Some(key.unwrap_or(Source::Address));
    }
    // A balance that cannot be read has been told already.
    if key.is_some() && (service.balance.is_none() || policy.is_some()) {
        let say = Say::new(
            format!("{path} has no effect"),
            "only balance = \"hash\" sends what has the same key to the same endpoint",
            "add balance = \"hash\", or remove it",
        );
        let place = check.place_of(&path);
        check.problems.error(Code::Contradiction, &place, say);
    }
    None
}

pub(super) fn certificates(
    service: &raw::Balanced,
    check: &mut Checker<'_, '_>,
) -> Vec<Certificate> {
    let mut certificates = Vec::new();
    for (at, written) in service.certificates.iter().enumerate() {
        let path = |key: &str| {
            format!("services.{}.certificates.{}.{key}", service.name.get_ref(), at + 1)
        };
        if written.certificate.is_none() {
            let example = "\"/etc/tandem/shop.crt\"";
            check.missing(&path("certificate"), "clients are shown it", example);
        }
        if written.key.is_none() {
            let because = "a certificate without its key proves nothing to a client";
            check.missing(&path("key"), because, "\"/etc/tandem/shop.key\"");
        }
        let certificate = check.read(&path("certificate"), written.certificate.as_ref(), file);
        let key = check.read(&path("key"), written.key.as_ref(), file);
        if let (Some(certificate), Some(key)) = (certificate, key) {
            certificates.push(Certificate { certificate, key });
        }
    }
    certificates
}

pub(super) fn file(text: &str) -> Result<PathBuf, Unreadable> {
    let path = PathBuf::from(text);
    if path.is_absolute() && path.file_name().is_some() {
        return Ok(path);
    }
    let because = "it is a file on every node, whatever folder the daemon was started in";
    Err(unreadable(because, "write its whole path, such as \"/etc/tandem/shop.crt\""))
}

fn retry(
    http: &raw::Http,
    service: &raw::Balanced,
    check: &mut Checker<'_, '_>,
) -> Option<retry::Limits> {
    let path = |key: &str| format!("services.{}.retry.{key}", service.name.get_ref());
    let nothing = raw::Retry::default();
    let written = match &http.retry {
        Switch::Off => return None,
        Switch::Unwritten => &nothing,
        Switch::On(written) => written,
    };
    let percent = check.number(&path("percent"), written.percent.as_ref(), &PERCENT);
    let floor = check.number(&path("per_second"), written.per_second.as_ref(), &PER_SECOND);
    Some(retry::Limits { percent: number(percent), floor_per_second: number(floor) })
}

pub(super) fn question(service: &raw::Balanced, check: &mut Checker<'_, '_>) -> Option<Question> {
    let Switch::On(health) = &service.health else { return None };
    let key = |key: &str| format!("services.{}.health.{key}", service.name.get_ref());
    let written = &health.question;
    for (name, other) in [("host", &written.host), ("expect", &written.expect)] {
        if let (Some(other), None) = (other, &written.path) {
            let say = Say::new(
                format!("{} has no effect", key(name)),
                "without a path a check only connects, and asks for nothing",
                "add a path, such as path = \"/healthz\", or remove it",
            );
            check.problems.error(Code::Contradiction, &other.span(), say);
        }
    }
    let path = check.read(&key("path"), written.path.as_ref(), target);
    let host = check.read(&key("host"), written.host.as_ref(), host);
    let expect = check.read(&key("expect"), written.expect.as_ref(), statuses);
    Some(Question { path: path?, host, expect: expect.unwrap_or((200, 399)) })
}

pub(super) fn unreadable(because: &str, instead: &str) -> Unreadable {
    Unreadable { because: because.to_owned(), try_: instead.to_owned() }
}

fn head_bytes(text: &str) -> Result<u64, Unreadable> {
    let bytes = value::bytes(text)?;
    let fits = (1 << 10..=1 << 20).contains(&bytes);
    fits.then_some(bytes).ok_or_else(|| {
        let because = "a head is kept whole until it is understood, one for each connection";
        unreadable(because, "write \"1kB\" to \"1MB\"")
    })
}

/// A name that no rule of cookies reads otherwise.
pub(super) fn cookie(text: &str) -> Result<String, Unreadable> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (1..=64).contains(&text.len()) && text.bytes().all(is_word) {
        return Ok(text.to_owned());
    }
    let because = "it is the name of a cookie: letters, digits, - and _, at most 64 of them";
    Err(unreadable(because, "write it like \"place\""))
}

pub(super) fn network(text: &str) -> Result<String, Unreadable> {
    let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
    let is_number = |bits: &str| bits.bytes().all(|byte| byte.is_ascii_digit());
    // Clients' addresses are compared as what they are: one that is mapped would match nobody.
    let plain = ip.parse::<IpAddr>().ok().filter(|ip| *ip == ip.to_canonical());
    let read = plain.and_then(|ip| {
        let all = if ip.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => all,
            Some(bits) if is_number(bits) => bits.parse::<u32>().ok()?,
            Some(_) => return None,
        };
        (bits <= all).then(|| text.to_owned())
    });
    read.ok_or_else(|| {
        let because = "it is an IP address, or one with the number of its bits that count";
        unreadable(because, "write it like \"10.0.0.0/8\" or \"fd00::/8\"")
    })
}

/// What a request line can carry.
fn target(text: &str) -> Result<String, Unreadable> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    if text.starts_with('/') && text.len() <= 1024 && text.bytes().all(is_plain) {
        return Ok(text.to_owned());
    }
    let because = "it is a path from the root of the service, without spaces or #";
    Err(unreadable(because, "write it like \"/healthz\""))
}

fn host(text: &str) -> Result<String, Unreadable> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]_".contains(&byte);
    if (1..=255).contains(&text.len()) && text.bytes().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err(unreadable("it is a host name, with a port or without", "write it like \"shop.example\""))
}

/// `204`, or `200-399`.
fn statuses(text: &str) -> Result<(u16, u16), Unreadable> {
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten().filter(|it| (200..=599).contains(it))
    };
    match (status(least), status(most)) {
        (Some(least), Some(most)) if least <= most => Ok((least, most)),
        _ => {
            let because = "it is a status from 200 to 599, or two of them, the lower one first";
            Err(unreadable(because, "write it like \"200\" or \"200-399\""))
        }
    }
}
