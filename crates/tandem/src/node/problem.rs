//! Talks about why a node does not start or does not go on, to whoever started it.
//! In: `Error`. Out: a `Problem` with its own code: what, because, try.
//! Not here: printing it (`cli/report.rs`).
//! Tested by: `tests/bad_days.rs`, with real processes.

use super::{Error, user};
use crate::config;
use crate::consensus::{self, StoreError};
use crate::runtime::user::Error as NotFound;
use crate::service::postgres;
use crate::telemetry::codes;
use crate::telemetry::problem::{Problem, chain};
use crate::{identity, peers, proxy};
use std::io;

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Config(problems) => of_config(&problems),
            Error::Unreadable(source) => of_file(&source),
            Error::File { path, source } => Self::new(
                codes::CANNOT_READ_FILE,
                format!("cannot read or make {}", path.display()),
                source.to_string(),
                "check the path, its owner and its permissions",
            ),
            Error::NoSuchNode { node, known } => Self::new(
                codes::NOT_IN_FILE,
                format!("the configuration has no node {node}"),
                format!("it names {known}"),
                "correct --node, or add the node to the file on every node",
            ),
            Error::OtherNode { dir, found, node } => Self::new(
                codes::FOLDER_OF_ANOTHER,
                format!("{} is not the folder of node {node}", dir.display()),
                format!("its certificate is of node {found}"),
                "correct --node or --dir; a new node needs tandem join, not a copy of a folder",
            ),
            // Its own exit status: a unit must not start it again and again.
            Error::Removed { ref node, .. } => Self::new(
                codes::NO_SUCH_NODE,
                format!("cannot run node {node}"),
                error.to_string(),
                "systemctl disable tandem, or empty the folder and let it join again",
            ),
            Error::Routes { path, source } => Self::new(
                codes::ROUTES,
                format!("cannot understand {}", path.display()),
                source.to_string(),
                "correct that line, or leave --routes out",
            ),
            Error::Identity(error) => of_identity(&error),
            Error::Consensus(error) => of_consensus(error),
            Error::Peers(error) => of_peers(&error),
            Error::Door(error) => of_door(&error),
            Error::Postgres(error) => of_postgres(&error),
            Error::PostgresPort { service, address } => Self::new(
                codes::POSTGRES_PORT,
                format!("PostgreSQL of service {service} cannot listen on {address}"),
                "something else listens there, and it is not this node's PostgreSQL",
                "ss -ltnp shows who; end it, or set port in the service",
            ),
            Error::Keeper(error) => Self::caused_by(
                codes::KEEPER,
                "the keeper of an instance cannot be had",
                &error,
                "see keeper.log in the service's folder",
            ),
            Error::Api(error) => error.into(),
            Error::User(error) => error.into(),
            Error::StillEnds => Self::new(
                codes::BUSY,
                "a service cannot begin here",
                error.to_string(),
                "wait until tandem status shows that nothing of it is left",
            ),
            Error::Broken => Self::new(
                codes::NODE_BROKE,
                "the node stopped",
                "a part that it cannot do without ended",
                "read the last errors of the log above",
            ),
        }
    }
}

impl From<user::Error> for Problem {
    fn from(error: user::Error) -> Self {
        let service = error.service;
        match error.source {
            NotFound::NoUser(user) => Self::new(
                codes::NO_SUCH_USER,
                format!("PostgreSQL of service {service} cannot run as {user}"),
                "there is no such user on this machine",
                "create the user (PostgreSQL's package does), or set run_as in the service",
            ),
            NotFound::OtherUser { user, me } => Self::new(
                codes::NO_SUCH_USER,
                format!("PostgreSQL of service {service} cannot run as {user}"),
                format!("this daemon is user {me}, and only root starts programs as another user"),
                format!("start the daemon as {user} or as root, or remove run_as"),
            ),
        }
    }
}

/// A configuration file that cannot be read as text.
pub(crate) fn of_file(error: &config::Error) -> Problem {
    let (path, advice) = match error {
        config::Error::Io { path, .. } => (path, "check the path, and who may read the file"),
        config::Error::TooLarge { path, .. } => {
            (path, "check the path: a real one has a few kilobytes")
        }
        config::Error::NotUtf8 { path, .. } => {
            (path, "write that character in UTF-8: iconv -f LATIN1 -t UTF-8 converts a whole file")
        }
    };
    let what = format!("cannot read the configuration {}", path.display());
    Problem::caused_by(codes::CANNOT_READ_FILE, what, error, advice)
}

/// The first problem of a file by its own number, with everything that was found in its words.
pub(crate) fn of_config(problems: &[config::Problem]) -> Problem {
    let text = problems.iter().map(config::Problem::render).collect::<Vec<_>>().join("\n");
    let first = problems.iter().find(|problem| problem.is_error());
    let code = first.and_then(|problem| problem.code.id().parse().ok());
    Problem::new(
        code.unwrap_or(codes::UNEXPECTED),
        format!("the configuration cannot be used\n{}", text.trim_end()),
        first.map_or_else(|| "of what is marked above".into(), |problem| problem.because.clone()),
        first.map_or_else(
            || "tandem config check".into(),
            |problem| format!("{}; tandem config check reads it again", problem.try_),
        ),
    )
}

/// Certificates and secrets in a folder.
pub(crate) fn of_identity(error: &identity::Error) -> Problem {
    use identity::Error as E;
    let (code, what, try_) = match error {
        E::Exists { .. } => (
            codes::IDENTITY_EXISTS,
            "the folder holds an identity already",
            "start the node that lives there, or use another folder",
        ),
        E::Missing { .. } => (
            codes::NO_IDENTITY,
            "the folder holds no identity",
            "check --dir; tandem init makes the first node, tandem join every other",
        ),
        E::Exposed { .. } => (
            codes::SECRET_EXPOSED,
            "other users of this machine could read a secret",
            "chmod 600 on that file",
        ),
        E::Io { .. } | E::Damaged { .. } | E::Certificate(_) | E::Tls(_) => (
            codes::IDENTITY_DAMAGED,
            "the identity of this node cannot be used",
            "restore identity/, or remove the node, move its folder away, and join it again",
        ),
        E::Name { .. } => (
            codes::CONFIG_BAD_NAME,
            "the node's name cannot stand in a certificate",
            "use 1 to 31 letters from a to z, digits and -, with a letter first",
        ),
        E::NoAuthority { .. } | E::Token(_) | E::Refused { .. } => (
            codes::TOKEN_REFUSED,
            "the node cannot join, nothing was changed",
            "tandem token makes a new token on a member",
        ),
        E::Unreached { .. } | E::Unanswered { .. } => (
            codes::JOIN_UNANSWERED,
            "the node cannot join",
            "check that the member runs, and its address in the token (--to gives another)",
        ),
    };
    Problem::caused_by(code, what, error, try_)
}

fn of_consensus(error: consensus::Error) -> Problem {
    let consensus::Error::Store(error) = error else {
        return Problem::caused_by(
            codes::RAFT_STOPPED,
            "this node takes no part in agreements",
            &error,
            "repair what the cause names, and start the node again",
        );
    };
    let store = "the Raft store cannot be used";
    match &error {
        _ if is_full(&error) => Problem::caused_by(
            codes::RAFT_DISK_FULL,
            "no room for the Raft store",
            &error,
            "make room on the disk of the node's folder, and start the node again",
        ),
        StoreError::OtherNode { .. } | StoreError::OtherCluster { .. } => Problem::caused_by(
            codes::RAFT_STORE_OF_ANOTHER,
            store,
            &error,
            "put the right raft.redb back, or start the node that it belongs to",
        ),
        StoreError::Unreadable { .. } | StoreError::Hole { .. } | StoreError::Panicked { .. } => {
            damaged(&error)
        }
        StoreError::Database { source, .. } if is_corrupted(source) => damaged(&error),
        StoreError::Database { .. }
        | StoreError::InUse { .. }
        | StoreError::Nothing { .. }
        | StoreError::Thread(_)
        | StoreError::Closed => Problem::caused_by(
            codes::RAFT_STORE,
            store,
            &error,
            "check its owner and mode, and that no second daemon uses the folder",
        ),
    }
}

fn damaged(error: &StoreError) -> Problem {
    Problem::caused_by(
        codes::RAFT_STORE_DAMAGED,
        "the Raft store is damaged",
        error,
        "tandem remove this node on another, move raft.redb and identity/ away, join it again",
    )
}

fn of_peers(error: &peers::Error) -> Problem {
    match error {
        peers::Error::Listen { address, source } => Problem::caused_by(
            codes::CANNOT_LISTEN,
            format!("cannot listen for the other nodes on {address}"),
            source,
            "ss -ltnp shows who holds the port; end it, or set another address for this node",
        ),
        other => Problem::caused_by(
            codes::UNEXPECTED,
            "cannot talk to the other nodes",
            other,
            "see the node's log",
        ),
    }
}

fn of_door(error: &proxy::Error) -> Problem {
    match error {
        proxy::Error::Listen { service, address, source } => Problem::caused_by(
            codes::CANNOT_LISTEN,
            format!("the front door of service {service} cannot listen on {address}"),
            source,
            "ss -ltnp shows who holds the port; end it, or set listen in the service",
        ),
        proxy::Error::Certificate { service, why } => Problem::new(
            codes::DOOR_CERTIFICATE,
            format!("the front door of service {service} cannot use a certificate"),
            why.as_str(),
            "mend the file on this node, or name another one in certificates of the service",
        ),
        proxy::Error::NoAddress { service } => Problem::new(
            codes::CANNOT_LISTEN,
            format!("the front door of service {service} has no address"),
            "the configuration names none",
            "set listen in the service",
        ),
    }
}

/// What an instance needs and does not find.
pub(crate) fn of_postgres(error: &postgres::Error) -> Problem {
    use postgres::Error as E;
    let prepare = "PostgreSQL cannot be prepared";
    let (code, what, try_) = match error {
        E::NoBinaries { .. } => (
            codes::NO_POSTGRES,
            "PostgreSQL's programs were not found",
            "install PostgreSQL 15 to 18 (apt install postgresql), or set bin_dir in the service",
        ),
        E::Version { .. } => (
            codes::POSTGRES_VERSION,
            "this version of PostgreSQL is not supported",
            "install PostgreSQL 15 to 18, or set bin_dir to the folder of one",
        ),
        E::DataVersion { .. } => (
            codes::DATA_VERSION,
            "the data is of another version of PostgreSQL",
            "set bin_dir to the programs of that version, or upgrade the data with pg_upgrade",
        ),
        E::Owner { .. } => (
            codes::DATA_OWNER,
            "the data directory belongs to another user",
            "check that it is this node's data, then chown -R it, or set run_as",
        ),
        E::StateDamaged { .. } | E::StateVersion { .. } | E::StateMissing { .. } => (
            codes::STATE_FILE,
            "the record of what was promised cannot be used",
            "restore state.json with its data, or let the node copy again: tandem reinit",
        ),
        E::DiskFull { .. } => (
            codes::DATA_DISK_FULL,
            "no room on the disk of the data",
            "make room; pg_replication_slots shows what retains WAL",
        ),
        E::SocketPath { .. } => (codes::POSTGRES_FAILED, prepare, "use a shorter --dir"),
        E::Setting { .. } => (codes::CONFIG_SETTING, prepare, "take the setting out"),
        _ => (
            codes::POSTGRES_FAILED,
            prepare,
            "tandem doctor --before --config FILE --dir DIR checks the machine",
        ),
    };
    Problem::new(code, what, chain(error), try_)
}

/// No space left. The database code hides the system's error from `source`.
fn is_full(error: &StoreError) -> bool {
    let StoreError::Database { source, .. } = error else { return false };
    let redb::Error::Io(error) = &**source else { return false };
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn is_corrupted(error: &redb::Error) -> bool {
    match error {
        redb::Error::Corrupted(_) | redb::Error::RepairAborted => true,
        // Not a database at all.
        redb::Error::Io(error) => error.kind() == io::ErrorKind::InvalidData,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::codes::Exit;

    #[test]
    fn a_token_that_was_used_and_a_member_that_is_silent_are_told_apart() {
        let used = identity::Error::Refused { why: "the token was used a moment ago".into() };
        let problem = of_identity(&used);
        assert_eq!((problem.code, problem.exit()), (codes::TOKEN_REFUSED, Exit::Refused));
        assert!(problem.because.contains("was used"), "{problem}");
        let source = std::io::Error::other("no route");
        let silent = identity::Error::Unreached { address: "x:1".into(), source };
        let problem = of_identity(&silent);
        assert_eq!((problem.code, problem.exit()), (codes::JOIN_UNANSWERED, Exit::Unknown));
    }
}
