//! Talks about everything an operator can ask of a node: the one contract of API and daemon.
//! In: questions and verbs. Out: `Status`, `Explanation`, `Outcome` or `Refused`.
//! Not here: HTTP (`verbs.rs`), words for people (`cli`).
//! Tested by: `tests/fake.rs`, an implementation without a node.

use crate::api::explain::{Explanation, Finding, OnePartition};
use crate::api::metrics::MetricsSnapshot;
use crate::api::partitions::Divided;
use crate::api::role::RoleCheck;
use crate::api::status::Status;
use crate::telemetry::events::Event;
use crate::telemetry::problem::Problem;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use tandem_core::ids::{ConfigVersion, NodeId, PartitionId, ServiceId};
use tokio::sync::broadcast;

/// A verb that was not carried out, and why; nothing was changed unless its code says otherwise.
pub type Refused = Problem;

/// Everything an operator can ask of a node. What is not `async` answers at once, from memory.
pub trait Operations: Send + Sync + 'static {
    /// The cluster as this node sees it.
    fn status(&self) -> Status;

    /// The kept events after number `seq`, oldest first.
    fn events_since(&self, seq: u64) -> Vec<Event>;

    /// The events from now on.
    fn subscribe(&self) -> broadcast::Receiver<Event>;

    /// Why a service is as it is; none if there is no such service.
    fn explain(&self, service: &ServiceId) -> BoxFuture<'static, Option<Explanation>>;

    /// Where one partition of a service stands, and why.
    fn partition(
        &self,
        service: &ServiceId,
        of: PartitionOf,
    ) -> BoxFuture<'static, Result<OnePartition, Refused>>;

    /// Carries a verb out. The future runs to its end even if the asker goes away, so it has its
    /// own deadline.
    fn operate(&self, verb: Verb) -> BoxFuture<'static, Result<Outcome, Refused>>;

    /// What this node is for a service at this moment; without a name, for the only service.
    fn role(&self, service: Option<&ServiceId>) -> RoleCheck;

    /// The own copy of a service whose work is divided; none if there is none here.
    fn divided(&self, service: &ServiceId) -> Option<Arc<dyn Divided>>;

    /// Numbers for Prometheus.
    fn metrics(&self) -> MetricsSnapshot;

    /// Looks for what is wrong or soon will be.
    fn doctor(&self) -> BoxFuture<'static, Vec<Finding>>;

    /// The agreed configuration, as its owner wrote it.
    fn config(&self) -> RunningConfig;
}

/// Which partition is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionOf {
    /// By its number.
    Number(PartitionId),
    /// The one that this key belongs to.
    Key(String),
}

/// Something an operator wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Move the primary, planned.
    Switchover {
        /// Which service.
        service: ServiceId,
        /// The next primary; none leaves the choice to the planner.
        to: Option<NodeId>,
        /// Not before this moment, milliseconds since 1970; none is now.
        at_unix_ms: Option<u64>,
    },
    /// Take a scheduled or running switchover back.
    CancelSwitchover {
        /// Which service.
        service: ServiceId,
    },
    /// Replace a primary that does not serve.
    Failover {
        /// Which service.
        service: ServiceId,
        /// The next primary; none leaves the choice to the planner.
        to: Option<NodeId>,
        /// Go on although acknowledged commits may be lost.
        accept_loss: bool,
    },
    /// Automatic failover off.
    Pause {
        /// Which service.
        service: ServiceId,
    },
    /// Automatic failover on.
    Resume {
        /// Which service.
        service: ServiceId,
    },
    /// Restart one instance; without a node, every copy of a command in turns.
    Restart {
        /// Which service.
        service: ServiceId,
        /// Whose instance.
        node: Option<NodeId>,
    },
    /// Load the settings again on every node.
    Reload {
        /// Which service.
        service: ServiceId,
    },
    /// Replace one copy by a new base backup.
    Reinit {
        /// Which service.
        service: ServiceId,
        /// Whose copy.
        node: NodeId,
    },
    /// Empty a node: no primary is placed there.
    Drain {
        /// Which.
        node: NodeId,
    },
    /// Use a node again.
    Undrain {
        /// Which.
        node: NodeId,
    },
    /// Give one endpoint of a balanced service no new work.
    DrainUpstream {
        /// Which service.
        service: ServiceId,
        /// Which endpoint, as it is written in the configuration.
        upstream: String,
    },
    /// Give one endpoint of a balanced service work again.
    UndrainUpstream {
        /// Which service.
        service: ServiceId,
        /// Which endpoint, as it is written in the configuration.
        upstream: String,
    },
    /// Agree on a new configuration.
    ApplyConfig {
        /// The file's text.
        text: String,
        /// The version it was made from; none overwrites whatever is there.
        expected: Option<ConfigVersion>,
    },
    /// Make a node a member.
    AddNode {
        /// Its name.
        node: NodeId,
        /// Where its peers reach it.
        address: String,
        /// It votes but holds no data.
        witness: bool,
        /// Where it stands.
        zone: Option<String>,
    },
    /// Make a node no longer a member.
    RemoveNode {
        /// Which.
        node: NodeId,
    },
    /// Make a one-time token with which a node of this name may join.
    MintToken {
        /// The name it is for.
        node: NodeId,
    },
}

/// How far a verb has come when it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// It is done.
    Done,
    /// It was begun or scheduled; events tell the rest.
    Accepted,
}

/// What came of a verb.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// How far it has come.
    pub progress: Progress,
    /// The same in words.
    pub message: String,
    /// Its numbers and names.
    #[serde(default)]
    pub fields: BTreeMap<String, Value>,
    /// A token that was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

impl Outcome {
    /// It is done.
    pub fn done(message: impl Into<String>) -> Self {
        let message = message.into();
        Self { progress: Progress::Done, message, fields: BTreeMap::new(), token: None }
    }

    /// It was begun or scheduled.
    pub fn accepted(message: impl Into<String>) -> Self {
        Self { progress: Progress::Accepted, ..Self::done(message) }
    }

    /// With one of its numbers or names.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// With a token.
    #[must_use]
    pub fn token(mut self, token: Secret) -> Self {
        self.token = Some(token);
        self
    }
}

/// Text that must not reach a log: `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// The agreed configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningConfig {
    /// Its version.
    pub version: ConfigVersion,
    /// The file's text, as its owner wrote it.
    pub text: String,
}
