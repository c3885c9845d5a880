//! What the owner asked for, validated: the part of the configuration that decisions need.
//! In: the shell's validated configuration. Out: `ClusterSpec`, agreed by all nodes.
//! Not here: ports, paths, passwords (the shell's configuration).

use crate::ids::{NodeId, ServiceId};
use crate::pairing::Pairing;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// The cluster as its owner wants it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// Every machine, by name.
    pub nodes: BTreeMap<NodeId, NodeSpec>,
    /// Every service, by name.
    pub services: BTreeMap<ServiceId, ServiceSpec>,
}

impl ClusterSpec {
    /// The nodes that hold data, in the order of their names.
    pub fn data_nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.nodes.iter().filter(|(_, spec)| spec.role == NodeRole::Data).map(|(node, _)| node)
    }

    /// With a seat on every data node for each service whose work is divided.
    #[must_use]
    pub fn with_seats(mut self) -> Self {
        let mut seats = Vec::new();
        for (of, spec) in self.services.iter().filter(|(_, spec)| spec.partitions.is_some()) {
            for node in self.data_nodes() {
                let seat = Some(Seat { of: of.clone(), node: node.clone() });
                let spec = ServiceSpec { partitions: None, seat, ..spec.clone() };
                seats.push((Seat::name(of, node), spec));
            }
        }
        self.services.extend(seats);
        self
    }
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Whether it holds data.
    pub role: NodeRole,
    /// Where it stands: among candidates of equal priority one in the old primary's zone is
    /// preferred.
    pub zone: Option<String>,
    /// Preferred as primary among equals; greater wins, default 100; 0 is never for long.
    pub priority: u32,
    /// How much work it can do, relative to the others; at least 1.
    pub capacity: u32,
}

/// What a machine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeRole {
    /// Votes and runs instances.
    Data,
    /// Votes, holds no data.
    Witness,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// The two words.
    pub pairing: Pairing,
    /// What an acknowledged commit is worth.
    pub durability: Durability,
    /// How long things may take.
    pub timing: Timing,
    /// Into how many parts its work is divided, each owned by one copy; none: it is not.
    pub partitions: Option<u32>,
    /// There if it is one node's copy of another service.
    pub seat: Option<Seat>,
    /// There if copies of it run side by side, none of them alone.
    pub copies: Option<Copies>,
}

impl ServiceSpec {
    /// A service of which one instance serves.
    pub const fn new(pairing: Pairing, durability: Durability, timing: Timing) -> Self {
        Self { pairing, durability, timing, copies: None, partitions: None, seat: None }
    }

    /// A command: it keeps nothing that others confirm, so, as in `Async` mode, a lease alone
    /// fences it, and nothing that it did is counted.
    pub const fn of_command(pairing: Pairing, timing: Timing) -> Self {
        let durability = Durability::Async { lag_bytes_max: 0, lag_max: Duration::MAX };
        Self::new(pairing, durability, timing)
    }

    /// Whether one instance of it is appointed: not one of copies that run side by side, nor of
    /// work that is divided, whose seats are.
    pub const fn is_appointed(&self) -> bool {
        self.copies.is_none() && self.partitions.is_none()
    }

    /// The same, with its work divided.
    #[must_use]
    pub fn divided(self, partitions: u32) -> Self {
        Self { partitions: Some(partitions), ..self }
    }
}

/// One node's copy of a command whose work is divided: it runs there or nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// The command.
    pub of: ServiceId,
    /// The node.
    pub node: NodeId,
}

impl Seat {
    /// By what name it is agreed: `work@a`, which no service in a configuration can have.
    pub fn name(of: &ServiceId, node: &NodeId) -> ServiceId {
        ServiceId::new(format!("{of}@{node}"))
    }

    /// Whose name that is; none of any other service.
    pub fn named(name: &ServiceId) -> Option<Self> {
        let (of, node) = name.as_str().rsplit_once('@')?;
        Some(Self { of: ServiceId::new(of), node: NodeId::new(node) })
    }
}

/// How many copies of a command run side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copies {
    /// So many, each on a data node of its own; none is one on each.
    pub replicas: Option<u32>,
    /// For what a copy still serves to end before it is stopped by a plan.
    pub drain_max: Duration,
}

/// What an acknowledged commit is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// `acks` standbys confirm each commit; with too few of them, writes wait.
    Quorum {
        /// Standbys per commit, at least 1.
        acks: usize,
    },
    /// As `Quorum`, but shrinks to what is left, down to the primary alone.
    Preferred {
        /// Standbys per commit while there are that many, at least 1.
        acks: usize,
    },
    /// Nobody confirms; a failover may lose up to the bounds.
    Async {
        /// No failover to a standby further behind than this, in bytes.
        lag_bytes_max: u64,
        /// Nor to one that lacks what was written in a longer time than this.
        lag_max: Duration,
    },
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// Between two heartbeats when nothing changes.
    pub heartbeat: Duration,
    /// Silence of a node after which it is suspected.
    pub suspicion: Duration,
    /// How long a primary may serve on one proof.
    pub lease: Duration,
    /// What two clocks may drift apart during one lease, and then some.
    pub drift_margin: Duration,
    /// A primary that lasted less counts as flapping (H37).
    pub stable_after: Duration,
    /// How long a replica may not stream from a healthy primary before the next rung of the ladder.
    pub rejoin_patience: Duration,
}

impl Timing {
    /// Of a command. A dead node's copy shall run elsewhere within 1.5 s: lease and margin leave
    /// 0.4 s for messages, agreement and its start. The margin covers the drift of two clocks and
    /// the time that a killed process takes to be gone.
    pub fn of_command() -> Self {
        Self {
            lease: Duration::from_millis(900),
            drift_margin: Duration::from_millis(200),
            ..Self::default()
        }
    }
}

impl Default for Timing {
    /// Lease plus detection stay under the 2 s budget of a silent failure (DESIGN: classes).
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            suspicion: Duration::from_millis(1000),
            lease: Duration::from_millis(1500),
            drift_margin: Duration::from_millis(100),
            stable_after: Duration::from_secs(10),
            rejoin_patience: Duration::from_secs(6),
        }
    }
}
