//! Talks to operators: what a balancer and its endpoints are and have done.
//! Not here: the words that they read (`api/balanced.rs`).

use super::owners::OwnersSnapshot;
use crate::proxy::http::{CertificateEnd, HttpSnapshot};
use std::net::SocketAddr;
use std::time::Duration;
use tandem_core::clustering::load_balanced::ejection::Condition;
use tandem_core::clustering::load_balanced::quantiles::{Histogram, Quantiles};
use tandem_core::ids::ServiceId;

/// What a balancer is and has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Whose it is.
    pub service: ServiceId,
    /// How endpoints are chosen.
    pub policy: &'static str,
    /// Open connections, held ones included.
    pub sessions: u64,
    /// Connections that wait for an endpoint.
    pub held: u64,
    /// Connections accepted so far.
    pub accepted: u64,
    /// Connections closed at once: too many, or no PROXY header where one must be.
    pub refused: u64,
    /// Connections that waited for an endpoint in vain.
    pub expired: u64,
    /// Connects that failed and were tried at another endpoint.
    pub retried: u64,
    /// Connections or requests refused for their client's rate, and for that of all.
    pub limited: [u64; 2],
    /// Every endpoint.
    pub endpoints: Vec<EndpointSnapshot>,
    /// There if it balances requests.
    pub http: Option<HttpSnapshot>,
    /// Certificates that clients are shown.
    pub certificates: Vec<CertificateEnd>,
    /// The one that endpoints are.
    pub shown_to_endpoints: Option<CertificateEnd>,
    /// Names that were never answered.
    pub unresolved: Vec<String>,
    /// There if its work has owners.
    pub owners: Option<OwnersSnapshot>,
}

/// What an endpoint is and has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSnapshot {
    /// Where.
    pub address: SocketAddr,
    /// As its owner wrote it: a name stands for many addresses.
    pub upstream: String,
    /// What it is in; none: it is listed no more.
    pub condition: Option<Condition>,
    /// How long it stays ejected.
    pub ejected_for: Option<Duration>,
    /// How much work it shall get, relative to the others.
    pub weight: u32,
    /// It stands in another zone than this node.
    pub far: bool,
    /// Percent of its weight that it gets now.
    pub share_percent: u32,
    /// Open connections.
    pub in_flight: u32,
    /// How slow it is to connect to, in microseconds; 0 is not known.
    pub latency_us: u64,
    /// How long it took in the last minute; none: there was nothing.
    pub quantiles: Option<Quantiles>,
    /// Connections or responses in a thousand seconds, as over the last ten to twenty seconds.
    pub rate_milli: u64,
    /// How long everything took so far.
    pub histogram: Histogram,
    /// Connections or responses so far.
    pub served: u64,
    /// Connects that failed so far, and connections that it dropped without a word.
    pub failed: u64,
    /// How often work that failed here was tried once more so far.
    pub retried: u64,
    /// How often it was ejected so far.
    pub ejected: u64,
    /// What went wrong last, however long ago.
    pub failure: Option<String>,
    /// That is no failure: it takes too long.
    pub is_slow: bool,
    /// How much of its work was cut so far, since it got no more and this had not ended in time.
    pub cut: u64,
    /// It has as much as it may.
    pub is_full: bool,
    /// When what it has is cut; none: it is not.
    pub cut_in: Option<Duration>,
}
