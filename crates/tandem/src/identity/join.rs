//! Talks to a node that wants to join, and to the member that lets it in.
//! In: a token; at the desk, a TLS stream without a client certificate. Out: `Joined`.
//! Keeps: INV-2 for tokens, one is used up durably before its answer is sent; H46, a version in
//! every message. Limits: one message of 1 MiB, ten wrong attempts a minute, then nobody is let
//! in until the minute is over.
//! Not here: the listener (`peers`), which limits time and number of connections.
//! Tested by: `tests.rs`, and joins over a real listener in `peers/tests`.

use super::authority::{Authority, signing_request};
use super::files::{Folder, Parts};
use super::token::Record;
use super::{ALPN_JOIN, Error, Identity, JoinToken, fingerprint, tls};
use bytes::Bytes;
use futures::{SinkExt, StreamExt as _};
use rcgen::KeyPair;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tandem_core::ids::{ClusterId, NodeId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

const VERSION: u16 = 1;
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Dialling, TLS, and a synced delete on a slow disk.
const PATIENCE: Duration = Duration::from_secs(10);
/// More wrong attempts than a person makes; a secret of 256 bits is not guessed at any rate.
const FAILURES_MAX: u32 = 10;
const FAILURES_WINDOW: Duration = Duration::from_secs(60);

#[derive(Serialize, Deserialize)]
struct Request {
    secret: [u8; 32],
    node: NodeId,
    signing_request: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Grant {
    node_cert: String,
    ca_cert: String,
    cluster: ClusterId,
    secret: [u8; 32],
    configuration: String,
}

/// What a node that joined has.
#[derive(Debug)]
pub struct Joined {
    /// Stored in its folder.
    pub identity: Identity,
    /// The cluster's configuration, as text.
    pub configuration: String,
}

/// Lets nodes in that show a token, on the node that holds the authority.
pub struct JoinDesk {
    dir: PathBuf,
    configuration: Box<dyn Fn() -> String + Send + Sync>,
    failures: Mutex<Option<(Instant, u32)>>,
}

impl fmt::Debug for JoinDesk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinDesk").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl JoinDesk {
    /// A desk for the authority in `dir`; `configuration` is what a new node is told.
    ///
    /// # Errors
    /// The folder has no authority.
    pub fn open(
        dir: &Path,
        configuration: impl Fn() -> String + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let folder = Folder::of(dir);
        if !folder.has_authority() {
            return Err(Error::NoAuthority { path: folder.path().to_owned() });
        }
        Ok(Self {
            dir: dir.to_owned(),
            configuration: Box::new(configuration),
            failures: Mutex::new(None),
        })
    }

    /// Answers one request; the caller bounds the time. Returns who was let in.
    ///
    /// # Errors
    /// The stream broke, or the client did not speak the protocol.
    pub async fn serve<S>(self: Arc<Self>, stream: S) -> io::Result<Option<NodeId>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut framed = framed(stream);
        let request = receive::<Request, _>(&mut framed).await?;
        let node = request.node.clone();
        let answer = tokio::task::spawn_blocking(move || self.admit(request))
            .await
            .unwrap_or_else(|_| Err("the node that was asked failed".to_owned()));
        send(&mut framed, &answer).await?;
        SinkExt::<Bytes>::close(&mut framed).await?;
        Ok(answer.is_ok().then_some(node))
    }

    /// Tells a client that there is nobody to let it in here.
    ///
    /// # Errors
    /// The stream broke.
    pub async fn turn_away<S>(stream: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut framed = framed(stream);
        let _ = receive::<Request, _>(&mut framed).await?;
        let answer: Result<Grant, String> =
            Err("this node cannot issue certificates; dial the one where `tandem init` ran".into());
        send(&mut framed, &answer).await?;
        SinkExt::<Bytes>::close(&mut framed).await
    }

    fn admit(&self, request: Request) -> Result<Grant, String> {
        if !self.attempts_left() {
            return Err("too many wrong attempts; wait a minute".into());
        }
        let record = Record::find(&self.dir, &request.secret)
            .filter(|record| record.node == request.node)
            .ok_or_else(|| {
                self.count_failure();
                // The same words for every reason: a guesser learns nothing.
                "the token is unknown, used, expired, or for another node; make a new one"
            })?;
        let signed = Authority::load(&self.dir).and_then(|authority| {
            let node_cert = authority.sign(request.signing_request, &record.node)?;
            Ok((authority, node_cert))
        });
        let (authority, node_cert) = signed.map_err(|error| {
            self.count_failure();
            tracing::warn!(node = %request.node, %error, "cannot issue a certificate");
            "the certificate could not be issued; see the log of the node that was asked"
        })?;
        match Record::consume(&self.dir, &request.secret) {
            Ok(true) => {}
            Ok(false) => return Err("the token was used a moment ago; make a new one".into()),
            Err(error) => {
                tracing::error!(%error, "a join token could not be deleted, nobody was let in");
                return Err("the token could not be used up; see the log of that node".into());
            }
        }
        Ok(Grant {
            node_cert,
            ca_cert: authority.ca_cert,
            cluster: authority.cluster,
            secret: authority.secret,
            configuration: (self.configuration)(),
        })
    }

    fn attempts_left(&self) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.is_some_and(|(since, _)| since.elapsed() > FAILURES_WINDOW) {
            *failures = None;
        }
        failures.is_none_or(|(_, count)| count < FAILURES_MAX)
    }

    fn count_failure(&self) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, count) = failures.unwrap_or((Instant::now(), 0));
        *failures = Some((since, count + 1));
    }
}

/// Joins the cluster that made the token, and stores the new identity in `dir`.
///
/// # Errors
/// The folder holds an identity, the member is not reached or is not the token's, or it refuses.
pub async fn join(token: &JoinToken, dir: &Path) -> Result<Joined, Error> {
    let folder = Folder::of(dir);
    // Before anything is sent: the token must not be used up for nothing.
    folder.refuse_existing()?;
    let key = KeyPair::generate()?;
    let request = Request {
        secret: token.secret,
        node: token.node.clone(),
        signing_request: signing_request(&key)?,
    };
    let grant = tokio::time::timeout(PATIENCE, ask(token, &request)).await.map_err(|_| {
        Error::Unanswered { address: token.address.clone(), seconds: PATIENCE.as_secs() }
    })??;
    let known =
        tls::certificates(&grant.ca_cert)?.iter().any(|ca| fingerprint(ca) == token.ca_fingerprint);
    if !known || grant.cluster != token.cluster {
        return Err(Error::Refused { why: "its answer is of another cluster".into() });
    }
    let configuration = grant.configuration;
    folder.store(&Parts {
        ca_cert: grant.ca_cert,
        node_cert: grant.node_cert,
        node_key: key.serialize_pem(),
        secret: grant.secret,
        cluster: grant.cluster,
        ca_key: None,
        joined: true,
    })?;
    Ok(Joined { identity: Identity::load(dir)?, configuration })
}

async fn ask(token: &JoinToken, request: &Request) -> Result<Grant, Error> {
    let unreached = |source| Error::Unreached { address: token.address.clone(), source };
    let verifier = Arc::new(Pinned { ca_fingerprint: token.ca_fingerprint });
    let mut config = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_JOIN.to_vec()];
    let name = tls::server_name(&token.host, &token.cluster)?;
    let stream = TcpStream::connect(&token.address).await.map_err(unreached)?;
    let stream =
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(unreached)?;
    let mut framed = framed(stream);
    send(&mut framed, request).await.map_err(unreached)?;
    let answer: Result<Grant, String> = receive(&mut framed).await.map_err(unreached)?;
    answer.map_err(|why| Error::Refused { why })
}

fn framed<S: AsyncRead + AsyncWrite>(stream: S) -> Framed<S, LengthDelimitedCodec> {
    let codec = LengthDelimitedCodec::builder().max_frame_length(MESSAGE_BYTES_MAX).new_codec();
    Framed::new(stream, codec)
}

async fn send<T, S>(framed: &mut Framed<S, LengthDelimitedCodec>, message: &T) -> io::Result<()>
where
    T: Serialize,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let bytes = postcard::to_stdvec(&VERSION)
        .and_then(|bytes| postcard::to_extend(message, bytes))
        .map_err(io::Error::other)?;
    framed.send(Bytes::from(bytes)).await
}

async fn receive<T, S>(framed: &mut Framed<S, LengthDelimitedCodec>) -> io::Result<T>
where
    T: serde::de::DeserializeOwned,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let invalid = |why: String| io::Error::new(ErrorKind::InvalidData, why);
    let bytes = framed.next().await.ok_or(ErrorKind::UnexpectedEof)??;
    let (version, rest) =
        postcard::take_from_bytes::<u16>(&bytes).map_err(|error| invalid(error.to_string()))?;
    if version != VERSION {
        return Err(invalid(format!(
            "it speaks version {version} of the join protocol, this node version {VERSION}; use \
             the same release"
        )));
    }
    postcard::from_bytes(rest).map_err(|error| invalid(error.to_string()))
}

/// Believes only the authority whose hash is in the token.
#[derive(Debug)]
struct Pinned {
    ca_fingerprint: [u8; 32],
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates
            .iter()
            .find(|certificate| fingerprint(certificate) == self.ca_fingerprint)
            .ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), tls::provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = tls::provider().signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = tls::provider().signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::provider().signature_verification_algorithms.supported_schemes()
    }
}
