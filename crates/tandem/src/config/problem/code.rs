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
    Syntax => "TDM0101",
    /// The file is too large.
    TooLarge => "TDM0102",
    /// A key that does not exist.
    UnknownKey => "TDM0103",
    /// A key that must be written is not there.
    MissingKey => "TDM0105",
    /// A number where text belongs, or the like.
    WrongType => "TDM0106",
    /// A value that cannot be read.
    BadValue => "TDM0107",
    /// A number outside its limits.
    OutOfRange => "TDM0108",
    /// A name that cannot be used.
    BadName => "TDM0109",
    /// A secret in a file that is the same on every node.
    Secret => "TDM0110",
    /// Clustering and replication that do not go together.
    RefusedPair => "TDM0111",
    /// A pairing that this version does not run.
    NotYet => "TDM0112",
    /// Two nodes with one address.
    DuplicateAddress => "TDM0113",
    /// Two listeners on one port.
    PortClash => "TDM0114",
    /// Not enough nodes for anything to run.
    TooFewNodes => "TDM0115",
    /// A durability that these nodes cannot keep.
    Durability => "TDM0116",
    /// Times that contradict each other.
    Timing => "TDM0117",
    /// A PostgreSQL setting that Tandem sets, or that would lose data.
    Setting => "TDM0118",
    /// A data directory that cannot be used.
    DataDirectory => "TDM0119",
    /// Keys that contradict each other.
    Contradiction => "TDM0120",
    /// An older word for a pattern.
    OlderWord => "TDM0130",
    /// No automatic failover.
    NoFailover => "TDM0131",
    /// An even number of voters.
    EvenVoters => "TDM0132",
    /// A key that changes nothing here.
    NoEffect => "TDM0133",
    /// Nodes that share a machine, or cannot reach each other.
    SharedMachine => "TDM0134",
    /// One lost standby makes writes wait.
    WritesWait => "TDM0135",
    /// A rule that lets clients in without a password.
    OpenDoor => "TDM0136",
    /// A change that a running cluster must not make.
    UnsafeChange => "TDM0140",
    /// A change that restarts something.
    Restart => "TDM0141",
    /// A change that takes something away.
    Weaker => "TDM0142",
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
