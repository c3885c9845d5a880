//! Talks to people in numbers: the codes of everything a configuration can be told.
//! In: nothing. Out: `Code`, which prints as `TDM01nn`.
//! Not here: the sentences themselves, which carry the numbers of the case.

use serde::{Serialize, Serializer};
use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident => $id:literal),+ $(,)?) => {
        /// What is wrong, as a number that a page of documentation explains.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $($(#[$doc])* $variant),+
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The code as printed.
            pub const fn id(self) -> &'static str {
                match self { $(Self::$variant => $id),+ }
            }
        }
    };
}

codes! {
    /// The file is not TOML.
    Syntax => "TDM0201",
    /// The file is too large.
    TooLarge => "TDM0202",
    /// A key that does not exist.
    UnknownKey => "TDM0203",
    /// A key that must be written is not there.
    MissingKey => "TDM0205",
    /// A number where text belongs, or the like.
    WrongType => "TDM0206",
    /// A value that cannot be read.
    BadValue => "TDM0207",
    /// A number outside its limits.
    OutOfRange => "TDM0208",
    /// A name that cannot be used.
    BadName => "TDM0209",
    /// A secret in a file that is the same on every node.
    Secret => "TDM0210",
    /// Clustering and replication that do not go together.
    RefusedPair => "TDM0211",
    /// A pairing that this version does not run.
    NotYet => "TDM0212",
    /// Two nodes with one address.
    DuplicateAddress => "TDM0213",
    /// Two listeners on one port.
    PortClash => "TDM0214",
    /// Not enough nodes for anything to run.
    TooFewNodes => "TDM0215",
    /// A durability that these nodes cannot keep.
    Durability => "TDM0216",
    /// Times that contradict each other.
    Timing => "TDM0217",
    /// A PostgreSQL setting that Tandem sets, or that would lose data.
    Setting => "TDM0218",
    /// A data directory that cannot be used.
    DataDirectory => "TDM0219",
    /// Keys that contradict each other.
    Contradiction => "TDM0220",
    /// An older word for a pattern.
    OlderWord => "TDM0230",
    /// No automatic failover.
    NoFailover => "TDM0231",
    /// An even number of voters.
    EvenVoters => "TDM0232",
    /// A key that changes nothing here.
    NoEffect => "TDM0233",
    /// Nodes that share a machine, or cannot reach each other.
    SharedMachine => "TDM0234",
    /// One lost standby makes writes wait.
    WritesWait => "TDM0235",
    /// A rule that lets clients in without a password.
    OpenDoor => "TDM0236",
    /// A change that a running cluster must not make.
    UnsafeChange => "TDM0240",
    /// A change that restarts something.
    Restart => "TDM0241",
    /// A change that takes something away.
    Weaker => "TDM0242",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}
