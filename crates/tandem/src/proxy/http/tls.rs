//! Talks TLS to clients: which certificate is shown for which name, and when files are read again.
//! In: files of certificates and keys. Out: encrypted connections.
//! States: Loaded → (a file is another one than before) → Loaded anew, or as before with a warning.
//! Keeps: one provider, named explicitly, as with TLS between nodes. A certificate whose key is not
//! its own, or that is none, is refused when it is configured, and never takes the place of one
//! that works.
//! Not here: TLS between nodes (`identity`), what is said inside (`session.rs`).
//! Tested by: `tests/tls.rs`.

use super::{Http, h2};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tandem_core::ids::ServiceId;
use x509_parser::extensions::{GeneralName, ParsedExtension};

/// The files of one certificate, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate, then those up to its authority.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// When a certificate that is in use ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateEnd {
    /// Where it was read from.
    pub file: PathBuf,
    /// Seconds since 1970: its own end.
    pub unix_s: i64,
    /// That of the first to end of those beside it in the file: not everybody needs it.
    pub beside_unix_s: Option<i64>,
}

impl CertificateEnd {
    /// None of what is no certificate.
    pub(in crate::proxy) fn of(file: &Path, chain: &[CertificateDer<'_>]) -> Option<Self> {
        let end = |certificate: &CertificateDer<'_>| {
            let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
            Some(parsed.validity().not_after.timestamp())
        };
        let (own, beside) = chain.split_first()?;
        let beside_unix_s = beside.iter().filter_map(end).min();
        Some(Self { file: file.to_owned(), unix_s: end(own)?, beside_unix_s })
    }
}

/// Certificates that were read.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) config: Arc<ServerConfig>,
    pub(super) ends: Vec<CertificateEnd>,
    from: Vec<Certificate>,
    /// What clients may agree on to speak.
    protocols: &'static [&'static [u8]],
    /// Makes tickets, by which clients come back without a new handshake; the same after a renewal.
    tickets: Arc<dyn ProducesTickets>,
    /// When the files were written.
    written: Vec<Option<SystemTime>>,
}

impl Loaded {
    /// Reads them; none if there are none.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub(super) fn read(from: &[Certificate], http2: bool) -> Result<Option<Self>, String> {
        Self::read_for(from, if http2 { &[h2::ALPN, b"http/1.1"] } else { &[b"http/1.1"] })
    }

    fn read_for(
        from: &[Certificate],
        protocols: &'static [&'static [u8]],
    ) -> Result<Option<Self>, String> {
        if from.is_empty() {
            return Ok(None);
        }
        // The default keeps a few hundred sessions and forgets the rest.
        let tickets = ring::Ticketer::new().map_err(|error| error.to_string())?;
        Self::read_with(from, protocols, tickets).map(Some)
    }

    fn read_with(
        from: &[Certificate],
        protocols: &'static [&'static [u8]],
        tickets: Arc<dyn ProducesTickets>,
    ) -> Result<Self, String> {
        // Looked at first: what is written meanwhile is then read again.
        let written = written(from);
        let mut shown = Vec::new();
        for certificate in from {
            shown.push(Shown::read(certificate)?);
        }
        let ends = shown.iter().filter_map(|it| it.end.clone()).collect();
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Names(shown)));
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config.ticketer = Arc::clone(&tickets);
        let config = Arc::new(config);
        Ok(Self { config, ends, from: from.to_vec(), protocols, tickets, written })
    }

    /// Reads them again if a file is another one than before: what to go on with, and what is wrong
    /// with what is there now, which is said once.
    fn renew(&self) -> Option<(Self, Option<String>)> {
        // Looked at first: what is written while they are read is then read again.
        let written = written(&self.from);
        if written == self.written {
            return None;
        }
        let read = Self::read_with(&self.from, self.protocols, Arc::clone(&self.tickets));
        Some(match read {
            Ok(after) => (after, None),
            Err(why) => (Self { written, ..self.clone() }, Some(why)),
        })
    }
}

impl Http {
    /// When the certificates end that clients are shown.
    pub(in crate::proxy) fn certificate_ends(&self) -> Vec<CertificateEnd> {
        self.tls.ends()
    }
}

/// What clients of a door are shown, as it is now; nothing: they are spoken to in clear.
#[derive(Debug)]
pub(in crate::proxy) struct Shows(Mutex<Option<Loaded>>);

/// Certificates that were read, if there are any.
#[derive(Debug)]
pub(in crate::proxy) struct Certificates(pub(super) Option<Loaded>);

impl Certificates {
    /// For a door that does not look at what is inside: whatever clients speak there is theirs.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub(in crate::proxy) fn read(from: &[Certificate]) -> Result<Self, String> {
        Loaded::read_for(from, &[]).map(Self)
    }
}

impl Shows {
    pub(in crate::proxy) fn new(certificates: Certificates) -> Self {
        Self(Mutex::new(certificates.0))
    }

    /// Goes on with others.
    pub(in crate::proxy) fn configure(&self, certificates: Certificates) {
        *self.lock() = certificates.0;
    }

    /// How clients are spoken to; none: in clear.
    pub(in crate::proxy) fn config(&self) -> Option<Arc<ServerConfig>> {
        self.lock().as_ref().map(|loaded| Arc::clone(&loaded.config))
    }

    /// When they end.
    pub(in crate::proxy) fn ends(&self) -> Vec<CertificateEnd> {
        self.lock().as_ref().map(|loaded| loaded.ends.clone()).unwrap_or_default()
    }

    /// Reads those again whose files were written anew; what is wrong with them is said, and the
    /// ones before stay.
    pub(in crate::proxy) fn renew(&self, service: &ServiceId) {
        let Some(before) = self.lock().clone() else { return };
        let Some((after, wrong)) = before.renew() else { return };
        match wrong {
            None => tracing::info!(%service, "certificates were read again"),
            Some(why) => {
                tracing::warn!(%service, why, "a new certificate is not used, the old one stays");
            }
        }
        self.renewed(&before, after);
    }

    /// What was configured while files were read is newer than they are.
    pub(super) fn renewed(&self, before: &Loaded, after: Loaded) {
        let mut now = self.lock();
        if now.as_ref().is_some_and(|now| Arc::ptr_eq(&now.config, &before.config)) {
            *now = Some(after);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Loaded>> {
        // Nothing here leaves a value half changed when it panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn written(from: &[Certificate]) -> Vec<Option<SystemTime>> {
    let files = from.iter().flat_map(|it| [&it.chain, &it.key]);
    files.map(|file| std::fs::metadata(file).and_then(|it| it.modified()).ok()).collect()
}

/// A certificate and the names that it is for, in lower case.
#[derive(Debug)]
struct Shown {
    names: Vec<String>,
    key: Arc<CertifiedKey>,
    end: Option<CertificateEnd>,
}

impl Shown {
    fn read(of: &Certificate) -> Result<Self, String> {
        let wrong = |file: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", file.display());
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&of.chain)
            .and_then(Iterator::collect)
            .map_err(|error| wrong(&of.chain, &error))?;
        let key = PrivateKeyDer::from_pem_file(&of.key).map_err(|error| wrong(&of.key, &error))?;
        let Some(first) = chain.first() else {
            return Err(wrong(&of.chain, &"there is no certificate in it"));
        };
        let names = names(first).map_err(|why| wrong(&of.chain, &why))?;
        let end = CertificateEnd::of(&of.chain, &chain);
        let key =
            CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| {
                wrong(&of.key, &format!("not the key of this certificate: {error}"))
            })?;
        Ok(Self { names, key: Arc::new(key), end })
    }
}

fn names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| format!("it is no certificate: {error}"))?;
    let mut names = Vec::new();
    for extension in parsed.extensions() {
        let ParsedExtension::SubjectAlternativeName(alternatives) = extension.parsed_extension()
        else {
            continue;
        };
        for name in &alternatives.general_names {
            if let GeneralName::DNSName(name) = name {
                names.push(name.to_ascii_lowercase());
            }
        }
    }
    Ok(names)
}

/// In the order of the configuration; the first is for whoever asks for no name that is here.
#[derive(Debug)]
struct Names(Vec<Shown>);

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = hello.server_name().and_then(|asked| {
            let exact = self.0.iter().find(|it| it.names.iter().any(|name| name == asked));
            exact.or_else(|| self.0.iter().find(|it| it.names.iter().any(|n| covers(n, asked))))
        });
        found.or_else(|| self.0.first()).map(|shown| Arc::clone(&shown.key))
    }
}

/// `*.example.org` is for one word in the place of the star.
fn covers(name: &str, asked: &str) -> bool {
    let (Some(domain), Some((word, rest))) = (name.strip_prefix("*."), asked.split_once('.'))
    else {
        return false;
    };
    !word.is_empty() && rest == domain
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever renews writes one file after the other.
    #[test]
    fn a_key_that_comes_after_its_certificate_was_found_wrong_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (chain, key) = (dir.path().join("a.crt"), dir.path().join("a.key"));
        let made = || rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        let begun = SystemTime::now();
        let write = |file: &Path, text: String, second: u64| {
            std::fs::write(file, text).unwrap();
            let file = std::fs::File::options().write(true).open(file).unwrap();
            file.set_modified(begun + std::time::Duration::from_secs(second)).unwrap();
        };
        let (old, new) = (made(), made());
        write(&chain, old.cert.pem(), 0);
        write(&key, old.signing_key.serialize_pem(), 0);
        let from = [Certificate { chain: chain.clone(), key: key.clone() }];
        let loaded = Loaded::read(&from, false).unwrap().unwrap();
        assert!(loaded.renew().is_none());
        write(&chain, new.cert.pem(), 1);
        let (loaded, wrong) = loaded.renew().unwrap();
        assert!(wrong.is_some_and(|why| why.contains("not the key of this certificate")));
        assert!(loaded.renew().is_none(), "said once");
        write(&key, new.signing_key.serialize_pem(), 2);
        let (loaded, wrong) = loaded.renew().unwrap();
        assert!(wrong.is_none() && loaded.renew().is_none());
    }

    #[test]
    fn a_star_is_one_word() {
        assert!(covers("*.example.org", "a.example.org"));
        for other in ["example.org", "a.b.example.org", ".example.org", "aexample.org"] {
            assert!(!covers("*.example.org", other), "{other}");
        }
        assert!(!covers("example.org", "example.org"), "that is an equal name, not a star");
    }
}
