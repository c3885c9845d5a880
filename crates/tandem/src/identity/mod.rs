//! Talks to the node's identity folder: certificates and secrets that say who may speak for a node.
//! In: the node's folder, a join token. Out: `Identity`, its TLS settings, derived passwords.
//! Keeps: H35, a certificate names its node and its cluster, and no other cluster's is accepted.
//! Not here: connections between nodes (`peers`), who is a member (the agreed configuration).
//! Tested by: `tests.rs`, and joins over a real listener in `peers/tests`.

mod authority;
mod files;
mod join;
mod tls;
mod token;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub use authority::create_node_until;
pub use authority::{create_cluster, create_many, create_node};
pub use join::{JoinDesk, Joined, join};
pub use tls::{ALPN_JOIN, ALPN_MESH};
pub use token::{JoinToken, TokenFlaw, mint_token};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use files::{Folder, Parts};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ServerConfig};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tandem_core::ids::{ClusterId, NodeId, ServiceId};
use tls::Tls;

/// What a node proves itself with. Every node of a cluster holds the same `secret`.
pub struct Identity {
    cluster: ClusterId,
    node: NodeId,
    secret: [u8; 32],
    joined: bool,
    tls: Tls,
}

impl Identity {
    /// Whether a node's folder already has an identity.
    pub fn exists(dir: &Path) -> bool {
        Folder::of(dir).exists()
    }

    /// Reads the identity in a node's folder and checks that its parts belong together.
    ///
    /// # Errors
    /// A part is missing, readable by others, damaged, or not of the same cluster.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let folder = Folder::of(dir);
        let parts = folder.read()?;
        Self::from_parts(parts, folder.path())
    }

    fn from_parts(parts: Parts, path: &Path) -> Result<Self, Error> {
        let damaged = |why: String| Error::Damaged { path: path.to_owned(), why };
        let tls = Tls::new(&parts).map_err(|error| damaged(error.to_string()))?;
        let (node, cluster) = tls
            .own_name()
            .ok_or_else(|| damaged("node.crt does not name a node of a Tandem cluster".into()))?;
        if cluster != parts.cluster {
            return Err(damaged(format!(
                "node.crt is of cluster {cluster}, cluster-id says {}",
                parts.cluster
            )));
        }
        Ok(Self { cluster, node, secret: parts.secret, joined: parts.joined, tls })
    }

    /// When the node's certificate or its authority's ends, seconds since 1970.
    pub fn expires_unix_s(&self) -> Option<i64> {
        self.tls.expires_unix_s()
    }

    /// The cluster that this node belongs to.
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// The node that this is.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// Whether another node let this one in: it never founds the cluster, which is there already.
    pub fn joined(&self) -> bool {
        self.joined
    }

    /// The password of a service's database role: the same on every node, stored on none.
    pub fn password(&self, service: &ServiceId, role: &str) -> String {
        let text = format!("tandem password {service} {role}");
        URL_SAFE_NO_PAD.encode(blake3::keyed_hash(&self.secret, text.as_bytes()).as_bytes())
    }

    /// What hides the endpoints of a service in the cookies of its clients: the same on every node.
    pub fn cookie_secret(&self, service: &ServiceId) -> [u8; 32] {
        let text = format!("tandem cookie {service}");
        *blake3::keyed_hash(&self.secret, text.as_bytes()).as_bytes()
    }

    /// The hash by which a joining node recognises the cluster's authority.
    pub fn ca_fingerprint(&self) -> [u8; 32] {
        self.tls.ca.first().map_or([0; 32], |ca| fingerprint(ca))
    }

    /// What a peer's certificate must be valid for.
    ///
    /// # Errors
    /// The node's name cannot stand in a certificate.
    pub fn server_name(&self, node: &NodeId) -> Result<ServerName<'static>, Error> {
        tls::server_name(node, &self.cluster)
    }

    /// Which node a verified certificate speaks for; none unless it is of this cluster (H35).
    pub fn node_of(&self, certificate: &CertificateDer<'_>) -> Option<NodeId> {
        let (node, cluster) = tls::name_in(certificate)?;
        (cluster == self.cluster).then_some(node)
    }

    /// How to dial a peer.
    pub fn mesh_client(&self) -> Arc<ClientConfig> {
        self.tls.mesh_client.clone()
    }

    /// How to answer a peer: it must show a certificate of this cluster's authority.
    pub fn mesh_server(&self) -> Arc<ServerConfig> {
        self.tls.mesh_server.clone()
    }

    /// How to answer a node that wants to join: it has no certificate yet.
    pub fn join_server(&self) -> Arc<ServerConfig> {
        self.tls.join_server.clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("cluster", &self.cluster)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    *blake3::hash(certificate).as_bytes()
}

/// Why there is no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Creating or joining would overwrite one.
    #[error("{path} already holds an identity; use another folder, or remove it first")]
    Exists {
        /// The identity folder.
        path: PathBuf,
    },
    /// Nothing was created or joined here yet.
    #[error("there is no identity in {path}; run `tandem init` or `tandem join` first")]
    Missing {
        /// The identity folder.
        path: PathBuf,
    },
    /// The system refused to read or write a file.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Other users of the machine could read a secret.
    #[error("{path} can be read by other users (mode {mode:o}); run `chmod 600` on it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The parts do not belong together or cannot be read.
    #[error("the identity in {path} is damaged: {why}; restore it, or remove it and join again")]
    Damaged {
        /// The identity folder.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The name cannot stand in a certificate.
    #[error(
        "`{node}` cannot be a node's name; use 1 to 31 letters from a to z, digits and `-`, with a \
         letter first"
    )]
    Name {
        /// The name.
        node: NodeId,
    },
    /// Only the node where the cluster was created can issue certificates.
    #[error("{path} has no ca.key; run this on the node where `tandem init` ran")]
    NoAuthority {
        /// The identity folder.
        path: PathBuf,
    },
    /// The authority could not make a certificate.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// TLS settings could not be made.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The text is not a join token.
    #[error(transparent)]
    Token(#[from] TokenFlaw),
    /// The member that was to be joined did not answer as it should.
    #[error("cannot join by {address}: {source}; check that the node there runs")]
    Unreached {
        /// What was dialled.
        address: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The member did not finish in time.
    #[error("cannot join by {address}: no answer within {seconds} s; check that the node runs")]
    Unanswered {
        /// What was dialled.
        address: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The member said no.
    #[error("the cluster refused: {why}")]
    Refused {
        /// Its words.
        why: String,
    },
}
