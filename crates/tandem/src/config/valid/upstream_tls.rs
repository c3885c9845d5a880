//! Decides whether endpoints can be spoken to as written: by which protocol, and encrypted.
//! In: the written keys. Out: `UpstreamProtocol`, `UpstreamTls`.
//! Keeps: an endpoint always has to prove its name: there is no key that leaves that out.
//! Not here: whether the files are what they should be (`proxy/balancer/dial.rs`).
//! Tested by: `config/tests/http.rs`.

use super::checker::Checker;
use super::http::{Certificate, file, unreadable};
use crate::config::problem::{Code, Say};
use crate::config::raw::{self, Switch};
use crate::config::value::Unreadable;
use std::path::PathBuf;

/// How endpoints are spoken to where that is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Whose certificates are believed.
    pub ca: PathBuf,
    /// The name that their certificates have to have; none: the one in `upstreams`.
    pub server_name: Option<String>,
    /// What they are shown, if they want to know who asks.
    pub certificate: Option<Certificate>,
}

/// What endpoints are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// What each of them says when it begins to encrypt.
    Auto,
}

impl UpstreamProtocol {
    const ALL: [Self; 3] = [Self::Http1, Self::Http2, Self::Auto];
    const WORDS: &[&str] = &["http1", "http2", "auto"];

    /// As it is written.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Auto => "auto",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.word() == word)
    }
}

/// `key` is the path of the table.
pub(super) fn check(
    written: &Switch<raw::UpstreamTls>,
    key: &str,
    check: &mut Checker<'_, '_>,
) -> Option<UpstreamTls> {
    let Switch::On(written) = written else { return None };
    let path = |name: &str| format!("{key}.{name}");
    if written.ca.is_none() {
        let because = "whoever answers has to prove who it is, and only the owner knows by whom";
        check.missing(&path("ca"), because, "\"/etc/ssl/certs/ca-certificates.crt\"");
    }
    for (one, other, name) in [
        (&written.certificate, &written.key, "key"),
        (&written.key, &written.certificate, "certificate"),
    ] {
        if one.is_some() && other.is_none() {
            let because = "a certificate proves nothing without its key, nor a key without it";
            check.missing(&path(name), because, &format!("\"/etc/tandem/client.{name}\""));
        }
    }
    let ca = check.read(&path("ca"), written.ca.as_ref(), file);
    let server_name = check.read(&path("server_name"), written.server_name.as_ref(), name);
    let certificate = check.read(&path("certificate"), written.certificate.as_ref(), file);
    let own = check.read(&path("key"), written.key.as_ref(), file);
    let certificate =
        certificate.zip(own).map(|(certificate, key)| Certificate { certificate, key });
    Some(UpstreamTls { ca: ca?, server_name, certificate })
}

/// How a service speaks to its endpoints, or its checks alone do.
pub(super) fn service(raw: &raw::Balanced, checker: &mut Checker<'_, '_>) -> Option<UpstreamTls> {
    let path = |key: &str| format!("services.{}.{key}", raw.name.get_ref());
    contradictions(raw, checker);
    match (&raw.upstream_tls, &raw.health) {
        (Switch::Unwritten | Switch::Off, Switch::On(health)) => {
            check(&health.tls, &path("health.tls"), checker)
        }
        (written, _) => check(written, &path("upstream_tls"), checker),
    }
}

/// What is written twice, or goes with what cannot be.
fn contradictions(service: &raw::Balanced, check: &mut Checker<'_, '_>) {
    let path = |key: &str| format!("services.{}.{key}", service.name.get_ref());
    let mut say = |key: &str, what: &str, (because, instead): (&str, &str)| {
        let place = check.place_of(&path(key));
        let say = Say::new(format!("{} {what}", path(key)), because, instead);
        check.problems.error(Code::Contradiction, &place, say);
    };
    let encrypts = matches!(service.upstream_tls, Switch::On(_));
    if let (true, Switch::On(health)) = (encrypts, &service.health) {
        if matches!(health.tls, Switch::On(_)) {
            let why = ("checks speak as connections do", "remove health.tls");
            say("health.tls", "has no effect beside upstream_tls", why);
        }
        if matches!(health.postgres, Switch::On(_)) {
            let why = (
                "PostgreSQL begins in clear, and so does its check; upstream_tls does not",
                "remove upstream_tls: what clients say is passed on, encrypted or not",
            );
            say("health.postgres", "does not go with upstream_tls", why);
        }
    }
    let protocol = service.http.as_ref().and_then(|http| http.upstream_protocol.as_ref());
    if service.send_proxy.is_some() && protocol.is_some_and(|it| it.get_ref() != "http1") {
        let why = (
            "a connection that says who its client is carries no other client's requests",
            "write upstream_protocol = \"http1\", or remove it: X-Forwarded-For says it too",
        );
        say("send_proxy", "goes with HTTP/1.1 only", why);
    }
}

/// What endpoints are spoken to, if that is written.
pub(super) fn protocol(
    http: &raw::Http,
    service: &raw::Balanced,
    check: &mut Checker<'_, '_>,
) -> UpstreamProtocol {
    let path = format!("services.{}.upstream_protocol", service.name.get_ref());
    let words = (UpstreamProtocol::WORDS, UpstreamProtocol::from_word);
    let written = http.upstream_protocol.as_ref();
    let protocol = written.and_then(|word| check.word(&path, word, words));
    let is_encrypted = matches!(service.upstream_tls, Switch::On(_));
    if protocol == Some(UpstreamProtocol::Auto) && !is_encrypted {
        let say = Say::new(
            format!("{path} is \"auto\" without upstream_tls"),
            "an endpoint says what it speaks when it begins to encrypt, and never in clear",
            "add upstream_tls, or write \"http1\" or \"http2\"",
        );
        let place = check.place_of(&path);
        check.problems.error(Code::Contradiction, &place, say);
    }
    protocol.unwrap_or(UpstreamProtocol::Http1)
}

/// A name, or an address: both can be in a certificate.
fn name(text: &str) -> Result<String, Unreadable> {
    if rustls::pki_types::ServerName::try_from(text).is_ok() {
        return Ok(text.to_owned());
    }
    let because = "it is a DNS name or an IP address, without a port";
    Err(unreadable(because, "write it like \"shop.internal\""))
}
