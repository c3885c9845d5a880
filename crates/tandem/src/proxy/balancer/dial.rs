//! Talks to endpoints at first: connects, and encrypts what is said where they want that.
//! In: addresses, files of certificates. Out: connections.
//! States: Loaded → (a file is another one than before) → Loaded anew, or as before with a warning.
//! Keeps: an endpoint that does not prove that it has the name it is asked for gets nothing; there
//! is no way to leave that out. One provider, named explicitly, as with TLS between nodes.
//! Not here: TLS of clients (`http/tls.rs`), which endpoint (`group.rs`).
//! Tested by: below, `http/tests/upstream_tls.rs`.

use super::header::{self, Version};
use crate::proxy::http::{Certificate, CertificateEnd, HTTP2, Stream};
use nix::errno::Errno;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use socket2::{Domain, Protocol, Socket, Type};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tandem_core::ids::ServiceId;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How endpoints are spoken to where that is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Whose certificates are believed, in PEM.
    pub ca: PathBuf,
    /// The name that their certificates have to have; none: the one that they are reached by.
    pub server_name: Option<String>,
    /// What they are shown, if they want to know who asks.
    pub certificate: Option<Certificate>,
}

/// What was read of it.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Loaded {
    config: Arc<ClientConfig>,
    end: Option<CertificateEnd>,
    from: UpstreamTls,
    protocols: &'static [&'static [u8]],
    written: Vec<Option<SystemTime>>,
}

impl Loaded {
    /// # Errors
    /// What is wrong with which file.
    fn read(from: &UpstreamTls, protocols: &'static [&'static [u8]]) -> Result<Self, String> {
        // Looked at first: what is written meanwhile is then read again.
        let written = written(from);
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&from.ca)? {
            roots.add(certificate).map_err(|error| wrong(&from.ca, &error))?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let mut end = None;
        let mut config = match &from.certificate {
            None => builder.with_no_client_auth(),
            Some(Certificate { chain, key: file }) => {
                let key =
                    PrivateKeyDer::from_pem_file(file).map_err(|error| wrong(file, &error))?;
                let file_of_chain = chain;
                let chain = certificates(file_of_chain)?;
                end = CertificateEnd::of(file_of_chain, &chain);
                builder.with_client_auth_cert(chain, key).map_err(|error| wrong(file, &error))?
            }
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Self { config: Arc::new(config), end, from: from.clone(), protocols, written })
    }
}

impl Loaded {
    /// What a connection that is made with it rests on.
    fn is_by(&self) -> (&UpstreamTls, &[&[u8]], &[Option<SystemTime>]) {
        (&self.from, self.protocols, &self.written)
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).map_err(|error| wrong(file, &error))?;
    let all = read.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(file, &error))?;
    if all.is_empty() {
        return Err(wrong(file, &"there is no certificate in it"));
    }
    Ok(all)
}

fn wrong(file: &Path, why: &dyn std::fmt::Display) -> String {
    format!("{}: {why}", file.display())
}

fn written(from: &UpstreamTls) -> Vec<Option<SystemTime>> {
    let own = from.certificate.iter().flat_map(|it| [&it.chain, &it.key]);
    let files = std::iter::once(&from.ca).chain(own);
    files.map(|file| std::fs::metadata(file).and_then(|it| it.modified()).ok()).collect()
}

/// As tokio's, but the system is asked how it went only where something went wrong: for short
/// connections each question counts.
pub(super) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // Waited for only after `connect`: what is not connected yet would be ready at once.
    let stream = TcpStream::from_std(socket.into())?;
    poll_fn(|cx| stream.poll_write_ready(cx)).await?;
    let ready = stream.ready(Interest::WRITABLE | Interest::ERROR).await?;
    if ready.is_error() || ready.is_write_closed() {
        stream.take_error()?.map_or(Ok(()), Err)?;
    }
    Ok(stream)
}

/// Reaches endpoints.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Dialer(Mutex<Option<Loaded>>);

impl Dialer {
    /// Reads what a configuration says; one of `protocols` has to be agreed on.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub(in crate::proxy) fn read(
        from: Option<&UpstreamTls>,
        protocols: &'static [&'static [u8]],
    ) -> Result<Option<Loaded>, String> {
        from.map(|from| Loaded::read(from, protocols)).transpose()
    }

    pub(in crate::proxy) fn new(loaded: Option<Loaded>) -> Self {
        Self(Mutex::new(loaded))
    }

    /// Goes on with this, and says whether it is another thing than before: files with the same
    /// names may have been written anew.
    pub(in crate::proxy) fn configure(&self, loaded: Option<Loaded>) -> bool {
        let mut before = self.lock();
        let is_other = before.as_ref().map(Loaded::is_by) != loaded.as_ref().map(Loaded::is_by);
        *before = loaded;
        is_other
    }

    /// When the certificate ends that endpoints are shown.
    pub(in crate::proxy) fn certificate_end(&self) -> Option<CertificateEnd> {
        self.lock().as_ref().and_then(|loaded| loaded.end.clone())
    }

    pub(in crate::proxy) fn is_encrypted(&self) -> bool {
        self.lock().is_some()
    }

    /// Reads files again that were written anew, and says whether it speaks by them from now on;
    /// what is wrong with them is said, and those before stay.
    pub(in crate::proxy) fn renew(&self, service: &ServiceId) -> bool {
        let Some(before) = self.lock().clone() else { return false };
        let now = written(&before.from);
        if now == before.written {
            return false;
        }
        let mut is_new = true;
        let after = match Loaded::read(&before.from, before.protocols) {
            Ok(after) => {
                tracing::info!(%service, "certificates for endpoints were read again");
                after
            }
            Err(why) => {
                tracing::warn!(%service, why, "new certificates for endpoints are not used");
                is_new = false;
                Loaded { written: now, ..before.clone() }
            }
        };
        // What was configured while files were read is newer than they are.
        let mut loaded = self.lock();
        if loaded.as_ref().is_some_and(|it| Arc::ptr_eq(&it.config, &before.config)) {
            *loaded = Some(after);
        }
        is_new
    }

    /// Connects. `host` is the name that the address was found by; `said` are a client and where
    /// it came to, which the endpoint is told first.
    pub(in crate::proxy) async fn dial(
        &self,
        address: SocketAddr,
        host: Option<&str>,
        said: Option<(Version, (SocketAddr, SocketAddr))>,
    ) -> io::Result<Stream> {
        let mut tcp = connect(address).await?;
        let _ = tcp.set_nodelay(true);
        let _ = super::listener::keep_alive(&tcp);
        if let Some((version, (client, door))) = said {
            tcp.write_all(&header::write(version, client, door)).await?;
        }
        self.encrypt(tcp, address, host).await
    }

    /// Encrypts a connection, if that is how its endpoint is spoken to.
    pub(in crate::proxy) async fn encrypt(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
        host: Option<&str>,
    ) -> io::Result<Stream> {
        let Some(Loaded { config, from, protocols, .. }) = self.lock().clone() else {
            return Ok(Stream::Plain(tcp));
        };
        let name = match from.server_name.as_deref().or(host) {
            Some(name) => ServerName::try_from(name.to_owned()).map_err(io::Error::other)?,
            None => ServerName::IpAddress(address.ip().into()),
        };
        let stream = TlsConnector::from(config).connect(name, tcp).await?;
        let stream = Stream::Tls(Box::new(stream.into()));
        // Without a word about it, it may still be HTTP/1.1.
        if protocols == [HTTP2] && stream.protocol() != Some(HTTP2) {
            return Err(io::Error::other("it does not agree to speak HTTP/2"));
        }
        Ok(stream)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Loaded>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn how_a_connect_went_is_known_without_a_question_where_it_went_well() {
        for localhost in ["127.0.0.1:0", "[::1]:0"] {
            // Not every machine has both.
            let Ok(listener) = TcpListener::bind(localhost).await else { continue };
            let address = listener.local_addr().unwrap();
            let mut connected = connect(address).await.unwrap();
            let (mut accepted, peer) = listener.accept().await.unwrap();
            assert_eq!(connected.local_addr().unwrap(), peer);
            accepted.write_all(b"x").await.unwrap();
            assert_eq!(connected.read_u8().await.unwrap(), b'x');
            drop(listener);
            let refused = connect(address).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        }
    }
}
