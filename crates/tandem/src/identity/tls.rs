//! Talks TLS 1.3: whom a node believes, and what it shows of itself.
//! In: the parts of an identity. Out: rustls settings, the node and cluster that a certificate
//! names.
//! Keeps: H35. One provider, *ring*, is named explicitly: with two in the build rustls panics
//! when it has to guess.
//! Tested by: `tests.rs`.

use super::Error;
use super::files::Parts;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::Arc;
use tandem_core::ids::{ClusterId, NodeId};
use x509_parser::extensions::{GeneralName, ParsedExtension};

/// What members speak; the version is in their greeting, where it can be refused with words.
pub const ALPN_MESH: &[u8] = b"tandem-mesh";
/// What a node speaks that has no certificate yet.
pub const ALPN_JOIN: &[u8] = b"tandem-join/1";

const DOMAIN: &str = "tandem";

pub(super) struct Tls {
    pub chain: Vec<CertificateDer<'static>>,
    pub ca: Vec<CertificateDer<'static>>,
    pub mesh_client: Arc<ClientConfig>,
    pub mesh_server: Arc<ServerConfig>,
    pub join_server: Arc<ServerConfig>,
}

impl Tls {
    pub fn new(parts: &Parts) -> Result<Self, Error> {
        let ca = certificates(&parts.ca_cert)?;
        let own = certificates(&parts.node_cert)?;
        // A joining node recognises the authority by its hash, so it must be shown.
        let chain: Vec<_> = own.into_iter().chain(ca.iter().cloned()).collect();
        let key = private_key(&parts.node_key)?;
        let mut roots = RootCertStore::empty();
        for certificate in &ca {
            roots.add(certificate.clone())?;
        }
        let roots = Arc::new(roots);

        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(chain.clone(), key.clone_key())?;
        client.alpn_protocols = vec![ALPN_MESH.to_vec()];
        // A resumed session would not check the certificate again.
        client.resumption = Resumption::disabled();

        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut mesh = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())?;
        mesh.alpn_protocols = vec![ALPN_MESH.to_vec()];
        let mut join = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain.clone(), key)?;
        join.alpn_protocols = vec![ALPN_JOIN.to_vec()];
        for server in [&mut mesh, &mut join] {
            server.session_storage = Arc::new(NoServerSessionStorage {});
            server.send_tls13_tickets = 0;
        }
        Ok(Self {
            chain,
            ca,
            mesh_client: Arc::new(client),
            mesh_server: Arc::new(mesh),
            join_server: Arc::new(join),
        })
    }

    /// When the first certificate of the chain ends, own or authority's; seconds since 1970.
    pub fn expires_unix_s(&self) -> Option<i64> {
        let ends = |certificate: &CertificateDer<'_>| {
            let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
            Some(parsed.validity().not_after.timestamp())
        };
        self.chain.iter().filter_map(ends).min()
    }

    pub fn own_name(&self) -> Option<(NodeId, ClusterId)> {
        self.chain.first().and_then(name_in)
    }
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The name that stands in a node's certificate: `a.CLUSTERID.tandem`.
pub(super) fn name_of(node: &NodeId, cluster: &ClusterId) -> Result<String, Error> {
    let name = node.as_str();
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let valid = name.len() <= 63
        && ends(name.chars().next())
        && ends(name.chars().last())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if valid {
        Ok(format!("{name}.{cluster}.{DOMAIN}"))
    } else {
        Err(Error::Name { node: node.clone() })
    }
}

pub(super) fn server_name(
    node: &NodeId,
    cluster: &ClusterId,
) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(name_of(node, cluster)?).map_err(|_| Error::Name { node: node.clone() })
}

/// Which node of which cluster a certificate names: it must name exactly one.
pub(super) fn name_in(certificate: &CertificateDer<'_>) -> Option<(NodeId, ClusterId)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let mut names =
        parsed.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        });
    let (Some(names), None) = (names.next(), names.next()) else { return None };
    let [GeneralName::DNSName(name)] = names.as_slice() else { return None };
    let mut labels = name.split('.');
    let (Some(node), Some(cluster), Some(DOMAIN), None) =
        (labels.next(), labels.next(), labels.next(), labels.next())
    else {
        return None;
    };
    Some((NodeId::new(node), ClusterId::new(cluster)))
}

pub(super) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| rustls::Error::General(format!("certificate: {error}")))?;
    if certificates.is_empty() {
        return Err(rustls::Error::General("no certificate in the file".into()).into());
    }
    Ok(certificates)
}

fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, Error> {
    // The parser's own words could repeat what it read.
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| rustls::Error::General("node.key is not a private key".into()).into())
}
