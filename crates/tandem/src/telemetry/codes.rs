//! Talks about every error by its number: one line per code, and one page in docs/errors.
//! In: a `Code`. Out: its HTTP status, its exit status and its page.
//! Add one: a line below and `docs/errors/TDMnnnn.md`; the build fails without the page.
//! Ranges: 00 general, 01 the process, 02 configuration, 03 identity, 04 consensus, 05 PostgreSQL,
//! 06 operations, 07 the API and its client, 08 the front door, 09 dev and drill.
//! Tested by: below, over every code that the sources mention.

use crate::telemetry::problem::Code;

/// What a program may conclude from an error; the exit status of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It failed: 1.
    Failed,
    /// It was asked wrongly: 2, as for a wrong option.
    Usage,
    /// It was refused, and nothing was changed: 3.
    Refused,
    /// Nobody answered, or what came of it is not known: 4.
    Unknown,
}

impl Exit {
    /// The exit status.
    pub const fn status(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Unknown => 4,
        }
    }
}

/// What is known of a code.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The number.
    pub code: Code,
    /// The status of an HTTP answer that carries it.
    pub http_status: u16,
    /// The exit status of a command that ends with it.
    pub exit: Exit,
    /// Its page.
    pub page: &'static str,
}

macro_rules! codes {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident = $number:literal $page:literal $status:literal $exit:ident;
    )+) => {
        $($(#[doc = $doc])+ pub const $name: Code = Code($number);)+

        /// Every code, in the order of its number.
        pub const ALL: &[Entry] = &[$(Entry {
            code: $name,
            http_status: $status,
            exit: Exit::$exit,
            page: include_str!(concat!("../../../../docs/errors/", $page, ".md")),
        }),+];
    };
}

codes! {
    /// Something that should not happen, or a failure that has no code of its own.
    UNEXPECTED = 1 "TDM0001" 500 Failed;
    /// A listener cannot be opened.
    CANNOT_LISTEN = 104 "TDM0104" 500 Failed;
    /// Logs cannot be set up.
    LOGS = 105 "TDM0105" 500 Usage;
    /// A file named on the command line cannot be read.
    CANNOT_READ_FILE = 106 "TDM0106" 500 Failed;
    /// An argument of a command makes no sense here.
    ARGUMENT = 107 "TDM0107" 400 Usage;
    /// The configuration has no node of that name.
    NOT_IN_FILE = 108 "TDM0108" 404 Usage;
    /// The file of other addresses cannot be understood.
    ROUTES = 109 "TDM0109" 422 Usage;
    /// There is no such user of the operating system.
    NO_SUCH_USER = 110 "TDM0110" 500 Failed;
    /// A part of the node ended, and with it the node.
    NODE_BROKE = 111 "TDM0111" 500 Failed;
    /// The keeper of an instance cannot be had.
    KEEPER = 112 "TDM0112" 500 Failed;
    /// The file is not TOML.
    CONFIG_SYNTAX = 201 "TDM0201" 422 Usage;
    /// The file is too large.
    CONFIG_TOO_LARGE = 202 "TDM0202" 422 Usage;
    /// A key that does not exist.
    CONFIG_UNKNOWN_KEY = 203 "TDM0203" 422 Usage;
    /// A key that must be written is not there.
    CONFIG_MISSING_KEY = 205 "TDM0205" 422 Usage;
    /// A number where text belongs, or the like.
    CONFIG_WRONG_TYPE = 206 "TDM0206" 422 Usage;
    /// A value that cannot be read.
    CONFIG_BAD_VALUE = 207 "TDM0207" 422 Usage;
    /// A number outside its limits.
    CONFIG_OUT_OF_RANGE = 208 "TDM0208" 422 Usage;
    /// A name that cannot be used.
    CONFIG_BAD_NAME = 209 "TDM0209" 422 Usage;
    /// A secret in a file that is the same on every node.
    CONFIG_SECRET = 210 "TDM0210" 422 Usage;
    /// Clustering and replication that do not go together.
    CONFIG_REFUSED_PAIR = 211 "TDM0211" 422 Usage;
    /// A pairing that this version does not run.
    CONFIG_NOT_YET = 212 "TDM0212" 422 Usage;
    /// Two nodes with one address.
    CONFIG_DUPLICATE_ADDRESS = 213 "TDM0213" 422 Usage;
    /// Two listeners on one port.
    CONFIG_PORT_CLASH = 214 "TDM0214" 422 Usage;
    /// Not enough nodes for anything to run.
    CONFIG_TOO_FEW_NODES = 215 "TDM0215" 422 Usage;
    /// A durability that these nodes cannot keep.
    CONFIG_DURABILITY = 216 "TDM0216" 422 Usage;
    /// Times that contradict each other.
    CONFIG_TIMING = 217 "TDM0217" 422 Usage;
    /// A PostgreSQL setting that Tandem sets, or that would lose data.
    CONFIG_SETTING = 218 "TDM0218" 422 Usage;
    /// A data directory that cannot be used.
    CONFIG_DATA_DIRECTORY = 219 "TDM0219" 422 Usage;
    /// Keys that contradict each other.
    CONFIG_CONTRADICTION = 220 "TDM0220" 422 Usage;
    /// An older word for a pattern.
    CONFIG_OLDER_WORD = 230 "TDM0230" 422 Usage;
    /// No automatic failover.
    CONFIG_NO_FAILOVER = 231 "TDM0231" 422 Usage;
    /// An even number of voters.
    CONFIG_EVEN_VOTERS = 232 "TDM0232" 422 Usage;
    /// A key that changes nothing here.
    CONFIG_NO_EFFECT = 233 "TDM0233" 422 Usage;
    /// Nodes that share a machine, or cannot reach each other.
    CONFIG_SHARED_MACHINE = 234 "TDM0234" 422 Usage;
    /// One lost standby makes writes wait.
    CONFIG_WRITES_WAIT = 235 "TDM0235" 422 Usage;
    /// A rule that lets clients in without a password.
    CONFIG_OPEN_DOOR = 236 "TDM0236" 422 Usage;
    /// A change that a running cluster must not make.
    CONFIG_UNSAFE_CHANGE = 240 "TDM0240" 409 Refused;
    /// A change that restarts something.
    CONFIG_RESTART = 241 "TDM0241" 422 Usage;
    /// A change that takes something away.
    CONFIG_WEAKER = 242 "TDM0242" 422 Usage;
    /// There is no identity in the folder.
    NO_IDENTITY = 301 "TDM0301" 409 Refused;
    /// The folder holds an identity already.
    IDENTITY_EXISTS = 302 "TDM0302" 409 Refused;
    /// The identity is damaged or cannot be read.
    IDENTITY_DAMAGED = 303 "TDM0303" 500 Failed;
    /// The folder is another node's.
    FOLDER_OF_ANOTHER = 304 "TDM0304" 409 Refused;
    /// Other users could read a secret.
    SECRET_EXPOSED = 305 "TDM0305" 409 Refused;
    /// The token of a join cannot be used.
    TOKEN_REFUSED = 306 "TDM0306" 409 Refused;
    /// The member that makes nodes of a cluster does not answer.
    JOIN_UNANSWERED = 307 "TDM0307" 502 Unknown;
    /// The Raft store cannot be opened, read or written.
    RAFT_STORE = 401 "TDM0401" 500 Failed;
    /// The Raft store is damaged.
    RAFT_STORE_DAMAGED = 402 "TDM0402" 500 Failed;
    /// The Raft store is another node's or another cluster's.
    RAFT_STORE_OF_ANOTHER = 403 "TDM0403" 409 Refused;
    /// No room on the disk of the Raft store.
    RAFT_DISK_FULL = 404 "TDM0404" 507 Failed;
    /// Raft does not start or has stopped.
    RAFT_STOPPED = 405 "TDM0405" 500 Failed;
    /// The node cannot go on alone.
    NOT_RECOVERABLE = 406 "TDM0406" 409 Refused;
    /// No programs of PostgreSQL.
    NO_POSTGRES = 501 "TDM0501" 500 Failed;
    /// Programs of a version that is not supported.
    POSTGRES_VERSION = 502 "TDM0502" 500 Failed;
    /// The data is of another major version than the programs.
    DATA_VERSION = 503 "TDM0503" 409 Refused;
    /// The data directory belongs to another user.
    DATA_OWNER = 504 "TDM0504" 409 Refused;
    /// Something else listens on PostgreSQL's port.
    POSTGRES_PORT = 505 "TDM0505" 500 Failed;
    /// The record of what was promised about the data cannot be used.
    STATE_FILE = 506 "TDM0506" 500 Failed;
    /// No room on the disk of the data.
    DATA_DISK_FULL = 507 "TDM0507" 507 Failed;
    /// The data is of another cluster.
    FOREIGN_DATA = 508 "TDM0508" 409 Refused;
    /// Something else that an instance needs failed.
    POSTGRES_FAILED = 509 "TDM0509" 500 Failed;
    /// There is no service of that name.
    NO_SUCH_SERVICE = 601 "TDM0601" 404 Refused;
    /// There is no node of that name.
    NO_SUCH_NODE = 602 "TDM0602" 404 Refused;
    /// No majority of the voters can be reached, so nothing can be agreed.
    NO_MAJORITY = 603 "TDM0603" 503 Refused;
    /// The node cannot become primary.
    TARGET_NOT_ELIGIBLE = 604 "TDM0604" 409 Refused;
    /// The node is too far behind to become primary.
    TARGET_LAGS = 605 "TDM0605" 409 Refused;
    /// A failover now could lose acknowledged commits.
    MAY_LOSE = 606 "TDM0606" 409 Refused;
    /// It is so already.
    ALREADY_SO = 607 "TDM0607" 409 Refused;
    /// Another operation on the service is under way.
    BUSY = 608 "TDM0608" 409 Refused;
    /// The change would leave too few nodes to agree or to confirm commits.
    WOULD_LOSE_QUORUM = 609 "TDM0609" 409 Refused;
    /// Somebody else changed it in the meantime.
    CHANGED_MEANWHILE = 610 "TDM0610" 409 Refused;
    /// It was begun, and whether it was done is not known.
    OUTCOME_UNKNOWN = 611 "TDM0611" 504 Unknown;
    /// The configuration is not valid.
    CONFIG_NOT_VALID = 613 "TDM0613" 422 Refused;
    /// The node is a witness.
    WITNESS = 614 "TDM0614" 409 Refused;
    /// The time for it is not acceptable.
    TIME_NOT_ACCEPTABLE = 615 "TDM0615" 422 Refused;
    /// It would destroy the copy that serves.
    PRIMARY_NOT_TOUCHED = 616 "TDM0616" 409 Refused;
    /// It was tried, and did not succeed.
    OPERATION_FAILED = 617 "TDM0617" 500 Failed;
    /// The kind of service or node cannot do that.
    NOT_SUPPORTED = 618 "TDM0618" 422 Refused;
    /// The primary serves, so there is nothing to fail over from.
    PRIMARY_SERVES = 619 "TDM0619" 409 Refused;
    /// A node that the operation needs cannot be reached; nothing was changed.
    NODE_UNREACHABLE = 620 "TDM0620" 409 Refused;
    /// No other copy of a command serves.
    LAST_COPY = 621 "TDM0621" 409 Refused;
    /// Nothing answers at the API's address.
    API_UNREACHABLE = 701 "TDM0701" 502 Unknown;
    /// The connection ended before the answer came.
    ANSWER_LOST = 702 "TDM0702" 502 Unknown;
    /// What answered is not Tandem's API, or is of another version.
    ANSWER_NOT_UNDERSTOOD = 703 "TDM0703" 502 Unknown;
    /// The body or a parameter of a request cannot be understood.
    BAD_REQUEST = 704 "TDM0704" 400 Usage;
    /// There is nothing at that path.
    NO_SUCH_PATH = 705 "TDM0705" 404 Failed;
    /// The path does not take that method.
    METHOD_NOT_ALLOWED = 706 "TDM0706" 405 Failed;
    /// The body of a request is too large.
    BODY_TOO_LARGE = 707 "TDM0707" 413 Refused;
    /// The API serves as many as it may.
    API_FULL = 708 "TDM0708" 503 Refused;
    /// A web page of another origin sent the request.
    FOREIGN_ORIGIN = 709 "TDM0709" 403 Refused;
    /// The request came too slowly.
    REQUEST_TOO_SLOW = 710 "TDM0710" 408 Failed;
    /// What a copy owns is not known yet.
    PARTITIONS_UNKNOWN = 711 "TDM0711" 503 Unknown;
    /// A partition was not asked back, or not under that epoch.
    NOT_RELEASED = 712 "TDM0712" 409 Refused;
    /// A certificate of a front door cannot be used.
    DOOR_CERTIFICATE = 801 "TDM0801" 500 Failed;
    /// A cluster on this machine does not start.
    DEV_CLUSTER = 901 "TDM0901" 500 Failed;
    /// A drill or a tour could not go on.
    DRILL_STOPPED = 902 "TDM0902" 500 Failed;
}

/// What is known of a code; none for one of another version.
pub fn entry(code: Code) -> Option<&'static Entry> {
    ALL.iter().find(|entry| entry.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    #[test]
    fn every_page_is_of_its_code_and_says_what_because_try() {
        for entry in ALL {
            let first = entry.page.lines().next().unwrap_or_default();
            assert!(first.starts_with(&format!("# {}: ", entry.code)), "{}: {first}", entry.code);
            for word in ["**What:**", "**Because:**", "**Try:**"] {
                assert!(entry.page.contains(word), "{} lacks {word}", entry.code);
            }
        }
        assert!(ALL.is_sorted_by_key(|entry| entry.code));
    }

    #[test]
    fn every_code_in_the_sources_has_its_page_and_no_page_is_without_a_code() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let known: BTreeSet<String> = ALL.iter().map(|entry| entry.code.to_string()).collect();
        let mut files = Vec::new();
        sources(&root.join("src"), &mut files);
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for (at, _) in text.match_indices("TDM") {
                let ends = !text.as_bytes().get(at + 7).is_some_and(u8::is_ascii_digit);
                let Some(code) = text.get(at..at + 7).filter(|_| ends) else { continue };
                let is_code = code.parse::<Code>().is_ok() && code != "TDM9999";
                assert!(!is_code || known.contains(code), "{}: {code}", file.display());
            }
        }
        for page in fs::read_dir(root.join("../../docs/errors")).unwrap() {
            let path = page.unwrap().path();
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            assert!(known.contains(&stem) || stem == "README", "{stem}.md has no code");
        }
    }
}
