//! Decides whether endpoints can be spoken to encrypted as written.
//! In: the written table. Out: `UpstreamTls`.
//! Keeps: an endpoint always has to prove its name: there is no key that leaves that out.
//! Not here: whether the files are what they should be (`proxy/balancer/dial.rs`).
//! Tested by: `config/tests/http.rs`.

use super::checker::Checker;
use super::http::{Certificate, file, unreadable};
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

/// A name, or an address: both can be in a certificate.
fn name(text: &str) -> Result<String, Unreadable> {
    if rustls::pki_types::ServerName::try_from(text).is_ok() {
        return Ok(text.to_owned());
    }
    let because = "it is a DNS name or an IP address, without a port";
    Err(unreadable(because, "write it like \"shop.internal\""))
}
