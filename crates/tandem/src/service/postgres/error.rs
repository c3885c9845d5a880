//! Talks to nobody: what can go wrong with an instance, each told apart from the others.
//! In: errors of files, programs and SQL. Out: `Error`; `may_pass_by_itself` says whether to wait.

use super::state_file::Sentinel;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tandem_core::ids::{NodeId, Term};
use tokio_postgres::error::SqlState;

/// Why something could not be done to an instance.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No programs of PostgreSQL.
    #[error("no PostgreSQL found in {looked}; install PostgreSQL 15 or newer, or set bin_dir")]
    NoBinaries {
        /// The folders that were searched.
        looked: String,
    },
    /// Programs of a version that is not supported.
    #[error("{path} says it is \"{said}\"; PostgreSQL 15 to 18 are supported")]
    Version {
        /// The program.
        path: PathBuf,
        /// What it printed.
        said: String,
    },
    /// A file or folder.
    #[error("cannot {doing} {path}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The folder's path does not fit into a unix socket's address.
    #[error(
        "{path} is {length} bytes long, and a unix socket's path at most {max}; use a shorter dir"
    )]
    SocketPath {
        /// The socket.
        path: PathBuf,
        /// How long it is.
        length: usize,
        /// How long it may be.
        max: usize,
    },
    /// The state file cannot be understood, so promises may be lost: never taken for empty.
    #[error(
        "the state file {path} is damaged; restore it, or empty the node's data and let it clone"
    )]
    StateDamaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The state file is of a newer program (H46).
    #[error("the state file {path} has version {version}, this program knows {known}; upgrade it")]
    StateVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// What we can read.
        known: u32,
    },
    /// There is data, but no record of what was promised about it.
    #[error(
        "{path} is missing though there is data; put the file back, or reinit to copy the data anew"
    )]
    StateMissing {
        /// The file.
        path: PathBuf,
    },
    /// A durable number would go back (INV-5).
    #[error("a promise would go back from term {from} to {to}")]
    GoesBack {
        /// The recorded one.
        from: Term,
        /// The proposed one.
        to: Term,
    },
    /// A setting that the owner may not choose.
    #[error("setting {name} cannot be set: {because}; {instead}")]
    Setting {
        /// Which.
        name: String,
        /// Why.
        because: &'static str,
        /// What instead.
        instead: &'static str,
    },
    /// The server read its files, and does not take all that is in them.
    #[error("PostgreSQL does not take its settings: {errors}")]
    NotLoaded {
        /// Its words, with file and line.
        errors: String,
    },
    /// A copy was interrupted (H19).
    #[error("the data directory is a mixture left by an interrupted {0}; it must be copied again")]
    MixedData(Sentinel),
    /// Not to be touched without a human.
    #[error("the instance is quarantined: {reason}")]
    Quarantined {
        /// Why.
        reason: String,
    },
    /// A write may be lost (H26).
    #[error("its disk is suspect: {reason}")]
    DiskSuspect {
        /// What the server said before it ended.
        reason: String,
    },
    /// There is no database cluster in the data directory.
    #[error("there is no data in {path}")]
    NoData {
        /// The data directory.
        path: PathBuf,
    },
    /// Somebody's data is in the way.
    #[error("{path} is not empty")]
    NotEmpty {
        /// The data directory.
        path: PathBuf,
    },
    /// Data that has a state of its own is not adopted.
    #[error("{path} is an instance of Tandem's already")]
    Adopted {
        /// The data directory.
        path: PathBuf,
    },
    /// Data of another major version than the programs.
    #[error("the data is of PostgreSQL {data}, the programs are {binaries}; run pg_upgrade")]
    DataVersion {
        /// PG_VERSION.
        data: String,
        /// The programs.
        binaries: u32,
    },
    /// The data directory belongs to somebody else.
    #[error("{path} belongs to user {owner}, PostgreSQL runs as {expected}; chown it")]
    Owner {
        /// The data directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who should own it.
        expected: u32,
    },
    /// A postmaster uses the data directory.
    #[error("process {pid} still uses {path}")]
    StillRunning {
        /// The postmaster.
        pid: i32,
        /// The data directory.
        path: PathBuf,
    },
    /// Data that is adopted must be able to run by itself.
    #[error(
        "the data was last run as a standby ({state}), so it lacks what its primary has; adopt the \
         primary's data, or promote it where it ran and stop it"
    )]
    NotAPrimary {
        /// The state in pg_control.
        state: String,
    },
    /// No address is known for a node.
    #[error("no address is known for PostgreSQL on {node}")]
    NoAddress {
        /// Which.
        node: NodeId,
    },
    /// Nobody listens on the unix socket.
    #[error("PostgreSQL is not running")]
    NotRunning,
    /// It runs, and does not take connections yet or any more (57P03).
    #[error("PostgreSQL does not take connections now: {message}")]
    Starting {
        /// The server's words.
        message: String,
    },
    /// All connections are in use: alive, not dead (H29).
    #[error("all connections of PostgreSQL are in use")]
    ConnectionsUsedUp,
    /// No answer in time (H29).
    #[error("no answer within {after:?} while {doing}")]
    Timeout {
        /// What was tried.
        doing: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// The server refused.
    #[error("PostgreSQL failed while {doing}")]
    Sql {
        /// What was tried.
        doing: &'static str,
        /// Its words.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The server's answer was not what was asked for.
    #[error("PostgreSQL's answer is not understood while {doing}: {answer}")]
    Answer {
        /// What was asked.
        doing: &'static str,
        /// What came.
        answer: String,
    },
    /// It is a standby where a primary is needed, or the other way round.
    #[error("the instance is not a {expected}")]
    Role {
        /// What it should be.
        expected: &'static str,
    },
    /// One of PostgreSQL's programs failed.
    #[error("{tool} failed: {output}")]
    Tool {
        /// Which.
        tool: &'static str,
        /// The end of its output.
        output: String,
    },
    /// The source of a copy does not answer: try again, the data here is as it was.
    #[error("the source {source_node} does not answer: {output}")]
    SourceUnavailable {
        /// Where from.
        source_node: NodeId,
        /// The end of the program's output.
        output: String,
    },
    /// The data cannot be rewound; a new base backup can.
    #[error("the data cannot be rewound, it must be cloned: {because}")]
    NeedsClone {
        /// Why.
        because: String,
    },
    /// A standby that crashed must recover as a standby before a rewind (H21).
    #[error("a standby that was not stopped cleanly cannot be rewound; start and stop it first")]
    NotRewindable,
    /// The copy was given up on request.
    #[error("cancelled")]
    Cancelled,
    /// Two primaries for one term: must never be.
    #[error("term {term} is already recorded for {node}")]
    TermTaken {
        /// The term.
        term: Term,
        /// Who recorded it.
        node: String,
    },
    /// No space left (H27).
    #[error("no space left on the disk of {path}")]
    DiskFull {
        /// The data directory.
        path: PathBuf,
    },
    /// The disk does not answer (H28).
    #[error("the disk of {path} has not answered for {since:?}")]
    DiskStuck {
        /// The data directory.
        path: PathBuf,
        /// For how long.
        since: Duration,
    },
    /// The runtime is going away.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// Whether the same call may succeed later without anybody doing anything.
    pub const fn may_pass_by_itself(&self) -> bool {
        match self {
            Self::NotRunning
            | Self::Starting { .. }
            | Self::ConnectionsUsedUp
            | Self::Timeout { .. }
            | Self::Sql { .. }
            | Self::StillRunning { .. }
            | Self::SourceUnavailable { .. }
            | Self::Tool { .. }
            | Self::Cancelled
            | Self::DiskFull { .. }
            | Self::DiskStuck { .. }
            | Self::Interrupted => true,
            Self::NoBinaries { .. }
            | Self::Version { .. }
            | Self::File { .. }
            | Self::SocketPath { .. }
            | Self::StateDamaged { .. }
            | Self::StateVersion { .. }
            | Self::StateMissing { .. }
            | Self::GoesBack { .. }
            | Self::Setting { .. }
            | Self::NotLoaded { .. }
            | Self::MixedData(_)
            | Self::Quarantined { .. }
            | Self::DiskSuspect { .. }
            | Self::NoData { .. }
            | Self::NotEmpty { .. }
            | Self::DataVersion { .. }
            | Self::Owner { .. }
            | Self::NotAPrimary { .. }
            | Self::Adopted { .. }
            | Self::NoAddress { .. }
            | Self::Answer { .. }
            | Self::Role { .. }
            | Self::NeedsClone { .. }
            | Self::NotRewindable
            | Self::TermTaken { .. } => false,
        }
    }

    pub(super) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull => Self::DiskFull { path },
            _ => Self::File { doing, path, source },
        }
    }

    /// Tells "down", "starting" and "full" apart from everything else.
    pub(super) fn sql(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |error| {
            let message = error.as_db_error().map(|e| e.message().to_owned()).unwrap_or_default();
            match error.code() {
                Some(&SqlState::CANNOT_CONNECT_NOW) => Self::Starting { message },
                Some(&SqlState::TOO_MANY_CONNECTIONS) => Self::ConnectionsUsedUp,
                // The postmaster ended under us: what follows is a refused connection.
                Some(&SqlState::ADMIN_SHUTDOWN | &SqlState::CRASH_SHUTDOWN) => Self::NotRunning,
                Some(_) => Self::Sql { doing, source: error },
                None if is_gone(&error) => Self::NotRunning,
                None => Self::Sql { doing, source: error },
            }
        }
    }
}

fn is_gone(error: &tokio_postgres::Error) -> bool {
    if error.is_closed() {
        return true;
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            use io::ErrorKind as K;
            return matches!(
                io.kind(),
                K::NotFound
                    | K::ConnectionRefused
                    | K::ConnectionReset
                    | K::BrokenPipe
                    | K::UnexpectedEof
            );
        }
        cause = error.source();
    }
    false
}
