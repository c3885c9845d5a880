//! Talks to a node's folder about how to log in: the password of a role, derived as everywhere.
//! In: the folder, a service, a role. Out: `Login`, or why there is none.
//! Keeps: a password is shown to whoever may read the node's secret, and to nobody else.
//! Not here: how it is derived (`identity`), printing it (`cli/passwords.rs`).
//! Tested by: `tests/members`.

use super::agreed;
use crate::api::operations::Secret;
use crate::config::Config;
use crate::identity::{self, Identity};
use crate::service::postgres::{APP_ROLE, SUPERUSER};
use std::io;
use std::path::{Path, PathBuf};
use tandem_core::ids::ServiceId;

/// As whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The application, through any door.
    App,
    /// The superuser, on this machine only.
    Superuser,
}

/// What a client needs.
#[derive(Clone, Debug)]
pub struct Login {
    /// The role of PostgreSQL.
    pub user: &'static str,
    /// Where it is at home.
    pub database: &'static str,
    /// The socket's folder; none: every node's own name or address.
    pub socket: Option<PathBuf>,
    /// The port of the door, or of the socket.
    pub port: u16,
    /// Its password.
    pub password: Secret,
}

/// Why nobody can log in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Whose folder it is.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// A file.
    #[error("cannot read {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// No configuration was brought here or agreed yet.
    #[error("which services there are is not known in {dir} yet")]
    NotStarted {
        /// The folder.
        dir: PathBuf,
    },
    /// The configuration in the folder cannot be read by this program.
    #[error("the configuration in {dir} is not understood: {because}")]
    Config {
        /// The folder.
        dir: PathBuf,
        /// Of the first error.
        because: String,
    },
    /// There is no such service.
    #[error("there is no service {service}: the configuration has {known}")]
    NoSuchService {
        /// What was asked for.
        service: ServiceId,
        /// What there is.
        known: String,
    },
}

/// How to log in to a service, as this node's folder tells.
///
/// # Errors
/// Those of the folder; `NoSuchService`: a password for a name that nobody has opens nothing.
pub fn login(dir: &Path, service: &ServiceId, role: Role) -> Result<Login, Error> {
    let identity = Identity::load(dir)?;
    let config = configuration(dir)?;
    let Some(it) = config.services.get(service) else {
        let known: Vec<&str> = config.services.keys().map(ServiceId::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(Error::NoSuchService { service: service.clone(), known });
    };
    let socket = dir.join("services").join(service.as_str()).join("run");
    let (user, database, socket, port) = match role {
        Role::App => (APP_ROLE, APP_ROLE, None, it.listen.port),
        Role::Superuser => (SUPERUSER, "postgres", Some(socket), it.port),
    };
    let password = Secret::new(identity.password(service, user));
    Ok(Login { user, database, socket, port, password })
}

/// What was agreed last; before that, what `join` brought along.
fn configuration(dir: &Path) -> Result<Config, Error> {
    let failed = |path: PathBuf| move |source| Error::File { path, source };
    let joined = dir.join("tandem.toml");
    let text = match agreed::load(dir).map_err(failed(agreed::path(dir)))? {
        Some(kept) => kept.text,
        None => match std::fs::read_to_string(&joined) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotStarted { dir: dir.to_owned() });
            }
            Err(error) => return Err(failed(joined)(error)),
        },
    };
    Config::parse(&text, "the configuration in the folder").map_err(|problems| Error::Config {
        dir: dir.to_owned(),
        because: problems.first().map(|problem| problem.what.clone()).unwrap_or_default(),
    })
}
