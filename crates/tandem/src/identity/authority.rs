//! Talks to the cluster's certificate authority: founds it and lets it vouch for nodes.
//! In: names. Out: identities in folders. The authority's key stays where the cluster was created.
//! Keeps: H35, a certificate's name comes from the authority, never from the request.
//! Tested by: `tests.rs`.

use super::files::{Folder, Parts};
use super::{Error, Identity, tls};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateSigningRequestDer;
use std::path::Path;
use tandem_core::ids::{ClusterId, NodeId};
use time::{Duration, OffsetDateTime};

/// How long certificates are valid, the authority's and the nodes' alike. A node's that ended
/// earlier would end the cluster's availability on a calendar day, and gain nothing: a node is shut
/// out by removing it from the agreed members, which takes effect at once.
const VALID_FOR: Duration = Duration::days(3653);

/// Creates a cluster: its authority, its secret, and the identity of its first node in `dir`.
///
/// # Errors
/// The folder holds an identity, the name is unusable, or the files cannot be written.
pub fn create_cluster(dir: &Path, cluster_name: &str, node: &NodeId) -> Result<Identity, Error> {
    let folder = Folder::of(dir);
    folder.refuse_existing()?;
    let cluster = ClusterId::new(format!("{:032x}", rand::random::<u128>()));
    let node_key = KeyPair::generate()?;
    let ca_key = KeyPair::generate()?;
    let ca_key_pem = ca_key.serialize_pem();
    let ca = CertifiedIssuer::self_signed(ca_params(cluster_name, &cluster), ca_key)?;
    let node_cert = node_params(node, &cluster)?.signed_by(&node_key, &ca)?;
    folder.store(&Parts {
        ca_cert: ca.pem(),
        node_cert: node_cert.pem(),
        node_key: node_key.serialize_pem(),
        secret: rand::random(),
        cluster,
        ca_key: Some(ca_key_pem),
        joined: false,
    })?;
    Identity::load(dir)
}

/// Issues an identity for one more node into `target`, with the authority in `ca_dir`: for
/// clusters whose folders are all on one machine.
///
/// # Errors
/// `ca_dir` has no authority, `target` holds an identity, or the files cannot be written.
pub fn create_node(ca_dir: &Path, node: &NodeId, target: &Path) -> Result<Identity, Error> {
    let folder = Folder::of(target);
    folder.refuse_existing()?;
    let authority = Authority::load(ca_dir)?;
    let key = KeyPair::generate()?;
    let certificate = node_params(node, &authority.cluster)?.signed_by(&key, &authority.issuer)?;
    folder.store(&Parts {
        ca_cert: authority.ca_cert,
        node_cert: certificate.pem(),
        node_key: key.serialize_pem(),
        secret: authority.secret,
        cluster: authority.cluster,
        ca_key: None,
        joined: false,
    })?;
    Identity::load(target)
}

/// As `create_node`, with a certificate that ends, or ended, at a given time.
#[cfg(test)]
pub fn create_node_until(
    ca_dir: &Path,
    node: &NodeId,
    target: &Path,
    not_after: OffsetDateTime,
) -> Result<Identity, Error> {
    let authority = Authority::load(ca_dir)?;
    let key = KeyPair::generate()?;
    let mut params = node_params(node, &authority.cluster)?;
    params.not_after = not_after;
    Folder::of(target).store(&Parts {
        ca_cert: authority.ca_cert,
        node_cert: params.signed_by(&key, &authority.issuer)?.pem(),
        node_key: key.serialize_pem(),
        secret: authority.secret,
        cluster: authority.cluster,
        ca_key: None,
        joined: false,
    })?;
    Identity::load(target)
}

/// Creates a whole cluster's identities, each in `root/NODE`; the first node holds the authority.
///
/// # Errors
/// As `create_cluster` and `create_node`.
pub fn create_many(
    root: &Path,
    cluster_name: &str,
    nodes: &[NodeId],
) -> Result<Vec<Identity>, Error> {
    let Some((first, others)) = nodes.split_first() else { return Ok(Vec::new()) };
    // All names first: a half-made cluster would refuse the next attempt.
    for node in nodes {
        tls::name_of(node, &ClusterId::new("0"))?;
        Folder::of(&root.join(node.as_str())).refuse_existing()?;
    }
    let first_dir = root.join(first.as_str());
    let mut identities = vec![create_cluster(&first_dir, cluster_name, first)?];
    for node in others {
        identities.push(create_node(&first_dir, node, &root.join(node.as_str()))?);
    }
    Ok(identities)
}

/// The authority, loaded only for as long as it signs.
pub(super) struct Authority {
    pub ca_cert: String,
    pub secret: [u8; 32],
    pub cluster: ClusterId,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let folder = Folder::of(dir);
        let parts = folder.read()?;
        let key = KeyPair::from_pem(&folder.read_authority_key()?)?;
        let issuer = Issuer::from_ca_cert_pem(&parts.ca_cert, key)?;
        let Parts { ca_cert, secret, cluster, .. } = parts;
        Ok(Self { ca_cert, secret, cluster, issuer })
    }

    /// Signs the request's key; everything else that the request says is replaced.
    pub fn sign(&self, request: Vec<u8>, node: &NodeId) -> Result<String, Error> {
        let request = CertificateSigningRequestDer::from(request);
        let mut request = CertificateSigningRequestParams::from_der(&request)?;
        request.params = node_params(node, &self.cluster)?;
        Ok(request.signed_by(&self.issuer)?.pem())
    }
}

/// A request for a certificate for `key`; the authority takes nothing else from it.
pub(super) fn signing_request(key: &KeyPair) -> Result<Vec<u8>, Error> {
    Ok(CertificateParams::default().serialize_request(key)?.der().to_vec())
}

fn ca_params(cluster_name: &str, cluster: &ClusterId) -> CertificateParams {
    let mut params = lasting_params();
    params.distinguished_name.push(DnType::CommonName, format!("tandem {cluster_name} {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn node_params(node: &NodeId, cluster: &ClusterId) -> Result<CertificateParams, Error> {
    let name = tls::name_of(node, cluster)?;
    let mut params = lasting_params();
    params.subject_alt_names = CertificateParams::new(vec![name])?.subject_alt_names;
    params.distinguished_name.push(DnType::CommonName, node.as_str());
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn lasting_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    // A machine whose clock lost its battery wakes up in 1970 and must still reach its peers.
    params.not_before = OffsetDateTime::UNIX_EPOCH;
    params.not_after = OffsetDateTime::now_utc() + VALID_FOR;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}
