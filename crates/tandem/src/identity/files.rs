//! Talks to the files of an identity: all appear at once, durable, and for their owner only.
//! In and out: `Parts`. Keeps: H36, a folder that was not completed is never seen as an identity.
//! Tested by: `tests.rs`.

use super::Error;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tandem_core::ids::ClusterId;

const CA_CERT: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const NODE_CERT: &str = "node.crt";
const NODE_KEY: &str = "node.key";
const SECRET: &str = "secret";
const CLUSTER: &str = "cluster-id";
/// Its presence says that the node was let into a cluster that another one had founded.
const JOINED: &str = "joined";

/// What is in the files; certificates and keys as PEM.
pub(super) struct Parts {
    pub ca_cert: String,
    pub node_cert: String,
    pub node_key: String,
    pub secret: [u8; 32],
    pub cluster: ClusterId,
    pub ca_key: Option<String>,
    /// The node was let in by another one.
    pub joined: bool,
}

/// `identity/` in a node's folder.
pub(super) struct Folder {
    node_dir: PathBuf,
    path: PathBuf,
}

impl Folder {
    pub fn of(node_dir: &Path) -> Self {
        Self { node_dir: node_dir.to_owned(), path: node_dir.join("identity") }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn exists(&self) -> bool {
        self.path.join(CLUSTER).exists()
    }

    pub fn tokens(&self) -> PathBuf {
        self.path.join("tokens")
    }

    pub fn has_authority(&self) -> bool {
        self.path.join(CA_KEY).exists()
    }

    pub fn refuse_existing(&self) -> Result<(), Error> {
        if self.exists() { Err(Error::Exists { path: self.path.clone() }) } else { Ok(()) }
    }

    pub fn read(&self) -> Result<Parts, Error> {
        if !self.exists() {
            return Err(Error::Missing { path: self.path.clone() });
        }
        let damaged = |why: &str| Error::Damaged { path: self.path.clone(), why: why.to_owned() };
        let secret = self.read_text(SECRET)?;
        let secret = URL_SAFE_NO_PAD
            .decode(secret.trim())
            .ok()
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .ok_or_else(|| damaged("secret is not 32 bytes"))?;
        let cluster = self.read_text(CLUSTER)?;
        let cluster = cluster.trim();
        if cluster.len() != 32 || !cluster.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(damaged("cluster-id is not 32 hexadecimal digits"));
        }
        Ok(Parts {
            ca_cert: self.read_text(CA_CERT)?,
            node_cert: self.read_text(NODE_CERT)?,
            node_key: self.read_text(NODE_KEY)?,
            secret,
            cluster: ClusterId::new(cluster),
            ca_key: None,
            joined: self.path.join(JOINED).exists(),
        })
    }

    /// The authority's key, where this node holds it.
    pub fn read_authority_key(&self) -> Result<String, Error> {
        if !self.has_authority() {
            return Err(Error::NoAuthority { path: self.path.clone() });
        }
        self.read_text(CA_KEY)
    }

    fn read_text(&self, name: &str) -> Result<String, Error> {
        let path = self.path.join(name);
        let secret = [CA_KEY, NODE_KEY, SECRET].contains(&name);
        let metadata = fs::metadata(&path).map_err(io("read", &path))?;
        let mode = metadata.permissions().mode() & 0o777;
        if secret && mode & 0o077 != 0 {
            return Err(Error::Exposed { path, mode });
        }
        fs::read_to_string(&path).map_err(io("read", &path))
    }

    /// Writes the whole identity beside its place and moves it there: after a crash there is all
    /// of it or none (H36), and an existing one is never replaced.
    pub fn store(&self, parts: &Parts) -> Result<(), Error> {
        self.refuse_existing()?;
        fs::create_dir_all(&self.node_dir).map_err(io("create", &self.node_dir))?;
        let staging = self.node_dir.join("identity.new");
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io("remove", &staging)(error));
            }
            _ => {}
        }
        create_private_dir(&staging)?;
        let secret = URL_SAFE_NO_PAD.encode(parts.secret);
        let mut files = vec![
            (CA_CERT, parts.ca_cert.as_str()),
            (NODE_CERT, parts.node_cert.as_str()),
            (NODE_KEY, parts.node_key.as_str()),
            (SECRET, secret.as_str()),
            (CLUSTER, parts.cluster.as_str()),
        ];
        files.extend(parts.ca_key.as_deref().map(|key| (CA_KEY, key)));
        files.extend(parts.joined.then_some((JOINED, "")));
        for (name, text) in files {
            write_new(&staging.join(name), text.as_bytes())?;
        }
        sync_dir(&staging)?;
        // Fails when somebody else was faster: a folder with files in it cannot be replaced.
        fs::rename(&staging, &self.path).map_err(|error| match error.kind() {
            ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists => {
                Error::Exists { path: self.path.clone() }
            }
            _ => io("create", &self.path)(error),
        })?;
        sync_dir(&self.node_dir)
    }
}

pub(super) fn io<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> Error + use<'a> {
    move |source| Error::Io { action, path: path.to_owned(), source }
}

pub(super) fn create_private_dir(path: &Path) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(io("create", path)(error)),
        _ => Ok(()),
    }
}

/// Writes a file that is complete and durable once it has its name.
pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temporary = path.with_extension("tmp");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(io("remove", &temporary)(error));
        }
        _ => {}
    }
    write_new(&temporary, bytes)?;
    fs::rename(&temporary, path).map_err(io("write", path))?;
    path.parent().map_or(Ok(()), sync_dir)
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(io("write", path))
}

pub(super) fn sync_dir(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io("sync", path))
}
