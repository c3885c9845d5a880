//! Talks about a service whose connections a node spreads over endpoints, in documented JSON.
//! In: what the asked node's own balancer knows: others may see other endpoints as down.
//! Out: `BalancedStatus`. Fields are added, never renamed or removed.
//! Not here: the table for people (`cli/ask/balanced.rs`), the same for Prometheus
//! (`metrics/balanced.rs`), who gets work (`tandem_core`).
//! Tested by: a snapshot of every field, in `tests/status.rs`.

use crate::api::status::{self, ServiceStatus, words};
use serde::{Deserialize, Serialize};
use std::fmt;
use tandem_core::ids::{NodeId, PartitionId, ServiceId};
use tandem_core::pairing::{Clustering, Kind, Replication};

/// One service as the asked node balances it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BalancedStatus {
    /// Its name.
    pub name: ServiceId,
    /// What kind of service.
    pub kind: Kind,
    /// Who serves.
    pub clustering: Clustering,
    /// Who holds the data.
    pub replication: Replication,
    /// Whose numbers these are: each node has a front door of its own.
    pub node: NodeId,
    /// How an endpoint is chosen.
    pub balance: String,
    /// Where clients connect.
    pub doors: Vec<status::Endpoint>,
    /// Open connections, held ones included.
    pub sessions: u64,
    /// Clients that wait for an endpoint now.
    pub held: u64,
    /// Connections accepted since the daemon opened the door.
    pub sessions_total: u64,
    /// Connections closed at once: too many, or no PROXY header where one must be.
    pub refused_total: u64,
    /// Clients that waited for an endpoint in vain.
    pub expired_total: u64,
    /// Connects that failed and were tried at another endpoint.
    pub retried_total: u64,
    /// Connections or requests refused since then: their client was over its rate.
    #[serde(default)]
    pub limited_client_total: u64,
    /// The same: all together were over theirs.
    #[serde(default)]
    pub limited_service_total: u64,
    /// Every endpoint.
    pub upstreams: Vec<UpstreamStatus>,
    /// Certificates that its clients or endpoints are shown, by file.
    #[serde(default)]
    pub certificates: Vec<CertificateStatus>,
    /// What became of its requests; there with kind http only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpStatus>,
    /// Where its work goes; there if each part of it has an owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owners: Option<OwnersStatus>,
    /// What the owner should know, loudest first.
    pub warnings: Vec<String>,
}

/// Where the work of a service goes whose every partition has one owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnersStatus {
    /// Partitions there are.
    pub partitions: u32,
    /// Of which so many lead to their owner now; what belongs to the others is held.
    pub routed: u32,
    /// What is held, by partition; none where nothing is.
    pub held: Vec<HeldStatus>,
    /// Requests that a copy turned away as not its own.
    pub misdirected_total: u64,
}

/// What of one partition waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldStatus {
    /// Which.
    pub partition: PartitionId,
    /// So many requests or connections.
    pub held: u64,
}

/// A certificate that is in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// Where it was read from, on the asked node.
    pub file: String,
    /// When it ends, or one between it and its authority: seconds since 1970.
    pub expires_unix_s: i64,
}

/// What became of the requests of a service since the daemon opened its door.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpStatus {
    /// Requests whose head was understood.
    pub requests_total: u64,
    /// Responses by the first digit of their status, from 1 to 5, the door's own ones included.
    pub responses_total: [u64; 5],
    /// Requests refused for what they are.
    pub refused_total: u64,
    /// Requests or connects tried once more at once.
    pub retried_total: u64,
    /// Those that were not, because the budget was used up.
    pub over_budget_total: u64,
    /// Requests that waited for an endpoint in vain.
    pub expired_total: u64,
    /// Requests whose endpoint did not answer in time.
    pub timed_out_total: u64,
    /// Requests whose endpoint closed the connection, or is not understood.
    pub broken_total: u64,
    /// Requests whose client left before its answer.
    pub abandoned_total: u64,
    /// Connections that changed to another protocol.
    pub upgraded_total: u64,
    /// Connections of HTTP/2 closed for frames that only make work.
    pub floods_total: u64,
}

/// What the classes of statuses are called, in the order of `responses_total`.
pub const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// One endpoint as the asked node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Where.
    pub address: String,
    /// As the configuration has it, where that is not the address itself: a name stands for many.
    #[serde(default)]
    pub name: Option<String>,
    /// What it is in.
    pub state: UpstreamState,
    /// Why it does not get its whole share.
    pub reason: Option<String>,
    /// How much work it shall get, relative to the others.
    pub weight: u32,
    /// Percent of its weight that it gets now.
    pub share_percent: u32,
    /// It stands in another zone than the node.
    pub far: bool,
    /// Open connections; with kind http requests that it has.
    pub in_flight: u32,
    /// Connections or responses per second, as over the last ten to twenty seconds.
    #[serde(default)]
    pub rate_per_s: f64,
    /// Milliseconds to connect to it, with kind http from a request to the head of its response: a
    /// mean that believes bad news at once; none before the first.
    pub latency_ms: Option<f64>,
    /// The same in the last minute; none if there was nothing.
    #[serde(default)]
    pub quantiles: Option<QuantilesStatus>,
    /// Connections that it got; with kind http responses.
    pub sessions_total: u64,
    /// Connections that it refused, or dropped without a word; with kind http failed requests.
    pub failed_total: u64,
    /// How often what failed here was tried once more.
    #[serde(default)]
    pub retried_total: u64,
    /// How often it was ejected.
    pub ejected_total: u64,
    /// Connections or requests that were cut: it got no more, and they had not ended within
    /// `drain_max`; or whoever had them is gone.
    #[serde(default)]
    pub cut_total: u64,
}

/// So much of what an endpoint did took at most so many milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantilesStatus {
    /// Half of it.
    pub p50_ms: f64,
    /// All but one of ten.
    pub p90_ms: f64,
    /// All but one of a hundred.
    pub p99_ms: f64,
}

words! {
    /// What an endpoint is in.
    UpstreamState {
        /// Gets its share.
        Up => "up",
        /// Came back: its share grows.
        Starting => "starting",
        /// Does not answer its checks.
        Down => "down",
        /// Left out for a while: its work failed.
        Ejected => "ejected",
        /// Gets no new work, by its owner's word.
        Draining => "draining",
        /// Was not asked yet: used while nothing else is up.
        Unchecked => "unchecked",
        /// Listed no more: what it has gets `drain_max` to end.
        Removed => "removed",
    }
}

/// One service of either sort.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AnyService {
    /// Tandem runs it.
    Run(Box<ServiceStatus>),
    /// Something else runs it.
    Balanced(Box<BalancedStatus>),
}
