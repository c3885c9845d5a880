//! Talks about a service whose connections a node spreads over endpoints, in documented JSON.
//! In: what the asked node's own balancer knows: others may see other endpoints as down.
//! Out: `BalancedStatus`. Fields are added, never renamed or removed.
//! Not here: the table for people (`cli/ask/balanced.rs`), who gets work (`tandem_core`).
//! Tested by: a snapshot of every field, in `tests/status.rs`.

use crate::api::metrics::{Number, Page, flag};
use crate::api::status::{self, ServiceStatus, words};
use serde::{Deserialize, Serialize};
use std::fmt;
use tandem_core::ids::{NodeId, ServiceId};
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
    /// Every endpoint.
    pub upstreams: Vec<UpstreamStatus>,
    /// What became of its requests; there with kind http only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpStatus>,
    /// What the owner should know, loudest first.
    pub warnings: Vec<String>,
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
}

/// One endpoint as the asked node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Where.
    pub address: String,
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
    /// Open connections.
    pub in_flight: u32,
    /// Milliseconds to connect to it: a mean that believes bad news at once; none before the first.
    pub latency_ms: Option<f64>,
    /// Connections that it got.
    pub sessions_total: u64,
    /// Connections that it refused, or dropped without a word.
    pub failed_total: u64,
    /// How often it was ejected.
    pub ejected_total: u64,
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

/// The families of Prometheus.
pub(super) fn families(page: &mut Page, services: &[BalancedStatus]) {
    if services.is_empty() {
        return;
    }
    let mut family = |name: &str, help: &str, value: fn(&BalancedStatus) -> u64| {
        page.family(name, help);
        for of in services {
            page.sample(name, &[("service", &of.name)], value(of));
        }
    };
    family("tandem_balancer_sessions", "Open connections, held ones included.", |it| it.sessions);
    family("tandem_balancer_held", "Clients that wait for an endpoint now.", |it| it.held);
    family("tandem_balancer_sessions_total", "Connections accepted.", |it| it.sessions_total);
    family("tandem_balancer_refused_total", "Connections closed at once.", |it| it.refused_total);
    family("tandem_balancer_expired_total", "Clients that waited in vain.", |it| it.expired_total);
    family("tandem_balancer_retried_total", "Connects tried elsewhere.", |it| it.retried_total);
    upstreams(page, services);
    requests(page, services);
}

fn requests(page: &mut Page, services: &[BalancedStatus]) {
    let http: Vec<_> =
        services.iter().filter_map(|it| Some((&it.name, it.http.as_ref()?))).collect();
    if http.is_empty() {
        return;
    }
    let mut family = |name: &str, help: &str, value: fn(&HttpStatus) -> u64| {
        page.family(name, help);
        for (service, it) in &http {
            page.sample(name, &[("service", service)], value(it));
        }
    };
    family("tandem_http_requests_total", "Requests understood.", |it| it.requests_total);
    family("tandem_http_refused_total", "Requests refused as malformed.", |it| it.refused_total);
    family("tandem_http_retried_total", "Tried once more at once.", |it| it.retried_total);
    let help = "Not tried once more: the budget is used up.";
    family("tandem_http_over_budget_total", help, |it| it.over_budget_total);
    family("tandem_http_expired_total", "Waited for an endpoint in vain.", |it| it.expired_total);
    family("tandem_http_timed_out_total", "Not answered in time.", |it| it.timed_out_total);
    family("tandem_http_broken_total", "The endpoint broke off.", |it| it.broken_total);
    family("tandem_http_abandoned_total", "The client left.", |it| it.abandoned_total);
    family("tandem_http_upgraded_total", "Changed to another protocol.", |it| it.upgraded_total);
    let name = "tandem_http_responses_total";
    page.family(name, "Responses by the class of their status, the door's own ones included.");
    for (service, it) in &http {
        for (class, count) in ["1xx", "2xx", "3xx", "4xx", "5xx"].iter().zip(it.responses_total) {
            page.sample(name, &[("service", service), ("class", class)], count);
        }
    }
}

fn upstreams(page: &mut Page, services: &[BalancedStatus]) {
    let mut family = |name: &str, help: &str, value: fn(&UpstreamStatus) -> Option<Number>| {
        page.family(name, help);
        for (of, it) in services.iter().flat_map(|of| of.upstreams.iter().map(move |it| (of, it))) {
            let labels: [(&str, &dyn fmt::Display); 2] =
                [("service", &of.name), ("upstream", &it.address)];
            if let Some(value) = value(it) {
                page.sample(name, &labels, value);
            }
        }
    };
    family("tandem_upstream_up", "The endpoint is in service.", |it| {
        let is_up = matches!(it.state, UpstreamState::Up | UpstreamState::Starting);
        Some(flag(is_up).into())
    });
    family("tandem_upstream_draining", "It gets no new work, by its owner's word.", |it| {
        Some(flag(it.state == UpstreamState::Draining).into())
    });
    family("tandem_upstream_ejected", "It is left out for a while.", |it| {
        Some(flag(it.state == UpstreamState::Ejected).into())
    });
    family("tandem_upstream_share_ratio", "How much of its weight it gets.", |it| {
        Some(Number::Real(f64::from(it.share_percent) / 100.0))
    });
    family("tandem_upstream_in_flight", "Open connections.", |it| {
        Some(u64::from(it.in_flight).into())
    });
    family("tandem_upstream_latency_seconds", "To connect to it, a peak EWMA.", |it| {
        it.latency_ms.map(|ms| Number::Real(ms / 1000.0))
    });
    family("tandem_upstream_sessions_total", "Connections that it got.", |it| {
        Some(it.sessions_total.into())
    });
    family("tandem_upstream_failed_total", "Connections that it refused or dropped.", |it| {
        Some(it.failed_total.into())
    });
    family("tandem_upstream_ejected_total", "How often it was ejected.", |it| {
        Some(it.ejected_total.into())
    });
}
