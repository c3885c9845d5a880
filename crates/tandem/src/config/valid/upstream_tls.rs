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
