//! Names and numbers that identify things: nodes, services, terms, timelines.
//! Not here: positions in the write-ahead log (`lsn.rs`), moments (`time.rs`).

use alloc::string::String;
use core::fmt;
use serde::{Deserialize, Serialize};

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps a name that was validated where it came in.
            pub fn new(name: impl Into<String>) -> Self {
                Self(name.into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self::new(name)
            }
        }
    };
}

name_type! {
    /// One machine with Tandem, as named in the configuration (`[nodes.a]`).
    NodeId
}
name_type! {
    /// What is protected, as named in the configuration (`[services.orders]`).
    ServiceId
}
name_type! {
    /// Random identity of a cluster, in every message (H35); 32 hexadecimal digits.
    ClusterId
}

macro_rules! number_type {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The number after this one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_type! {
    /// Epoch of one service's appointment. Never goes back; 0 is "none yet".
    Term(u64)
}
number_type! {
    /// Counts the agreed commands that changed one service; a command names the one it was planned
    /// on.
    Revision(u64)
}
number_type! {
    /// Counts agreed configurations; 0 is "none yet".
    ConfigVersion(u64)
}
number_type! {
    /// PostgreSQL's timeline. Not an identity: two nodes can make the same one (H6).
    TimelineId(u32)
}
number_type! {
    /// PostgreSQL's system identifier, made by initdb.
    SystemId(u64)
}
number_type! {
    /// One part of a service's work, from 0.
    PartitionId(u32)
}
number_type! {
    /// Grows with each change of a partition's owner, and with each release that was called off.
    Epoch(u64)
}
