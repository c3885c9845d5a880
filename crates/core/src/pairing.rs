//! Decides which clustering pattern goes with which replication pattern; a bad pair has no value.
//! In: the two words and the kind of service. Out: `Pairing`, or a refusal that says what instead.
//! Tested by: the whole table, below.

use core::fmt;
use serde::{Deserialize, Serialize};

/// Axis 1: who serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clustering {
    /// One works, another takes over.
    ActivePassive,
    /// All work, and the share of a failed one is redistributed.
    ActiveActive,
    /// Work is spread evenly.
    LoadBalanced,
}

/// Axis 2: who holds the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Replication {
    /// The service keeps no data, or keeps it elsewhere.
    None,
    /// One takes writes, the others are fed by it.
    PrimaryReplica,
    /// Several take writes.
    MultiPrimary,
    /// Every node supplies and consumes, without hierarchy or quorum.
    PeerToPeer,
}

/// What kind of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// PostgreSQL, run by Tandem.
    Postgres,
    /// Any command, run by Tandem.
    Command,
    /// HTTP endpoints that something else runs.
    Http,
    /// TCP endpoints that something else runs.
    Tcp,
}

macro_rules! words {
    ($type:ident { $($variant:ident => $word:literal),+ $(,)? }) => {
        impl $type {
            /// Every word of the axis, as written in the configuration.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word as written in the configuration.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The value of a word.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }
    };
}

words!(Clustering {
    ActivePassive => "active-passive",
    ActiveActive => "active-active",
    LoadBalanced => "load-balanced",
});
words!(Replication {
    None => "none",
    PrimaryReplica => "primary-replica",
    MultiPrimary => "multi-primary",
    PeerToPeer => "peer-to-peer",
});
words!(Kind { Postgres => "postgres", Command => "command", Http => "http", Tcp => "tcp" });

/// A pair that makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pairing {
    kind: Kind,
    clustering: Clustering,
    replication: Replication,
}

/// A pair that is refused, why, and what to choose instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{because}; {instead}")]
pub struct Refusal {
    /// Why the pair makes no sense.
    pub because: &'static str,
    /// What to choose instead.
    pub instead: &'static str,
}

impl Pairing {
    /// Pairs the two words for a kind of service.
    ///
    /// # Errors
    /// A `Refusal` that says why, and what to choose instead.
    pub const fn new(
        kind: Kind,
        clustering: Clustering,
        replication: Replication,
    ) -> Result<Self, Refusal> {
        use {Clustering as C, Kind as K, Replication as R};
        let (because, instead) = match (kind, clustering, replication) {
            (
                K::Postgres,
                C::ActivePassive | C::LoadBalanced,
                R::PrimaryReplica | R::MultiPrimary,
            )
            | (K::Postgres, C::LoadBalanced, R::PeerToPeer)
            | (K::Postgres, C::ActiveActive, R::MultiPrimary | R::PeerToPeer)
            | (K::Command, _, R::None)
            | (K::Http | K::Tcp, C::LoadBalanced, R::None) => {
                return Ok(Self { kind, clustering, replication });
            }
            (K::Postgres, C::ActivePassive, R::PeerToPeer) => (
                "peer-to-peer has no quorum that could choose the active node",
                "use replication = \"multi-primary\" for one writer at a time, or clustering = \
                 \"active-active\"",
            ),
            (K::Postgres, C::ActiveActive, R::PrimaryReplica) => (
                "with primary-replica only one node takes writes, so not all can be active",
                "use clustering = \"load-balanced\" to spread reads, or replication = \
                 \"multi-primary\" to write everywhere",
            ),
            (K::Postgres, _, R::None) => (
                "postgres keeps data, and without replication nobody could take over",
                "use replication = \"primary-replica\"",
            ),
            (K::Command, _, R::PrimaryReplica | R::MultiPrimary | R::PeerToPeer) => (
                "Tandem does not know how a command replicates its data",
                "use replication = \"none\"",
            ),
            (K::Http | K::Tcp, _, R::PrimaryReplica | R::MultiPrimary | R::PeerToPeer) => (
                "Tandem only routes to these endpoints and cannot replicate their data",
                "use replication = \"none\"",
            ),
            (K::Http | K::Tcp, C::ActivePassive | C::ActiveActive, R::None) => (
                "Tandem does not run these endpoints, so it cannot start, stop or fence them",
                "use clustering = \"load-balanced\", or kind = \"command\" so that Tandem runs the \
                 service",
            ),
        };
        Err(Refusal { because, instead })
    }

    /// What kind of service.
    pub const fn kind(self) -> Kind {
        self.kind
    }

    /// Who serves.
    pub const fn clustering(self) -> Clustering {
        self.clustering
    }

    /// Who holds the data.
    pub const fn replication(self) -> Replication {
        self.replication
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{string::String, vec::Vec};

    #[test]
    fn the_whole_table() {
        let table = |kind| -> Vec<String> {
            Clustering::WORDS
                .iter()
                .map(|clustering| {
                    Replication::WORDS
                        .iter()
                        .map(|replication| {
                            let (Some(c), Some(r)) = (
                                Clustering::from_word(clustering),
                                Replication::from_word(replication),
                            ) else {
                                panic!("words")
                            };
                            if Pairing::new(kind, c, r).is_ok() { 'y' } else { '-' }
                        })
                        .collect()
                })
                .collect()
        };
        assert_eq!(table(Kind::Postgres), ["-yy-", "--yy", "-yyy"]);
        assert_eq!(table(Kind::Command), ["y---", "y---", "y---"]);
        assert_eq!(table(Kind::Http), ["----", "----", "y---"]);
        assert_eq!(table(Kind::Tcp), ["----", "----", "y---"]);
    }
}
