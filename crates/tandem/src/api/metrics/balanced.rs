//! Talks to Prometheus about services whose endpoints something else runs.
//! In: `BalancedStatus`, `UpstreamTimes`. Out: families.
//! Not here: what the numbers mean (`api/balanced.rs`).
//! Tested by: `tests/metrics.rs`.

use super::{Number, Page, flag};
use crate::api::balanced::{
    BalancedStatus, CertificateStatus, HeldStatus, HttpStatus, OwnersStatus, STATUS_CLASSES,
    UpstreamState, UpstreamStatus,
};
use std::fmt;
use tandem_core::clustering::load_balanced::quantiles::{BOUNDS_US, Histogram};
use tandem_core::ids::ServiceId;

/// How long everything took at an endpoint so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTimes {
    /// Whose.
    pub service: ServiceId,
    /// Where.
    pub upstream: String,
    /// In classes.
    pub histogram: Histogram,
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
    let name = "tandem_certificate_expires_timestamp_seconds";
    if services.iter().any(|of| !of.certificates.is_empty()) {
        page.family(name, "When a certificate of a service ends, in seconds since 1970.");
    }
    for of in services {
        for CertificateStatus { file, expires_unix_s } in &of.certificates {
            let ends = Number::Real(*expires_unix_s as f64);
            page.sample(name, &[("service", &of.name), ("file", file)], ends);
        }
    }
    let name = "tandem_balancer_limited_total";
    page.family(name, "Connections or requests over a rate.");
    for of in services {
        let whose = [("client", of.limited_client_total), ("service", of.limited_service_total)];
        for (whose, count) in whose {
            page.sample(name, &[("service", &of.name), ("rate", &whose)], count);
        }
    }
}

/// Where work goes that has owners.
pub(super) fn owners(page: &mut Page, services: &[BalancedStatus]) {
    let all: Vec<_> =
        services.iter().filter_map(|it| Some((&it.name, it.owners.as_ref()?))).collect();
    if all.is_empty() {
        return;
    }
    let mut family = |name: &str, help: &str, value: fn(&OwnersStatus) -> u64| {
        page.family(name, help);
        for (service, it) in &all {
            page.sample(name, &[("service", service)], value(it));
        }
    };
    let help = "Partitions that lead to their owner here.";
    family("tandem_door_partitions_routed", help, |it| u64::from(it.routed));
    let help = "Requests that a copy turned away as not its own.";
    family("tandem_door_misdirected_total", help, |it| it.misdirected_total);
    let name = "tandem_door_partition_held";
    page.family(name, "What waits for the owner of a partition here; only where something does.");
    for (service, it) in &all {
        for HeldStatus { partition, held } in &it.held {
            let labels: [(&str, &dyn fmt::Display); 2] =
                [("service", service), ("partition", partition)];
            page.sample(name, &labels, *held);
        }
    }
}

/// How long work took, in classes: quantiles over many nodes and any time can be had from it.
pub(super) fn times(page: &mut Page, of: &[UpstreamTimes]) {
    if of.is_empty() {
        return;
    }
    let name = "tandem_upstream_duration_seconds";
    page.histogram(name, "To connect to it, or from a request to the head of its response.");
    for UpstreamTimes { service, upstream, histogram } in of {
        let bounds = BOUNDS_US.iter().map(|us| (*us as f64 / 1e6).to_string());
        let bounds = bounds.chain(std::iter::once("+Inf".to_owned()));
        let mut all = 0;
        for (bound, count) in bounds.zip(histogram.counts) {
            all += count;
            let labels: [(&str, &dyn fmt::Display); 3] =
                [("service", service), ("upstream", upstream), ("le", &bound)];
            page.sample("tandem_upstream_duration_seconds_bucket", &labels, all);
        }
        let labels: [(&str, &dyn fmt::Display); 2] = [("service", service), ("upstream", upstream)];
        let sum = histogram.sum_us as f64 / 1e6;
        page.sample("tandem_upstream_duration_seconds_sum", &labels, sum);
        page.sample("tandem_upstream_duration_seconds_count", &labels, all);
    }
}

/// What became of requests.
pub(super) fn requests(page: &mut Page, services: &[BalancedStatus]) {
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
    let help = "Connections of HTTP/2 closed for frames that only make work.";
    family("tandem_http_floods_total", help, |it| it.floods_total);
    let name = "tandem_http_responses_total";
    page.family(name, "Responses by the class of their status, the door's own ones included.");
    for (service, it) in &http {
        for (class, count) in STATUS_CLASSES.iter().zip(it.responses_total) {
            page.sample(name, &[("service", service), ("class", class)], count);
        }
    }
}

/// Every endpoint, of services that something else runs and of readers.
pub(super) fn upstreams(
    page: &mut Page,
    services: &[BalancedStatus],
    readers: &[(ServiceId, UpstreamStatus)],
) {
    let balanced = services.iter().flat_map(|of| of.upstreams.iter().map(move |it| (&of.name, it)));
    let readers = readers.iter().map(|(of, it)| (of, it));
    let all: Vec<(&ServiceId, &UpstreamStatus)> = balanced.chain(readers).collect();
    if all.is_empty() {
        return;
    }
    let mut family = |name: &str, help: &str, value: fn(&UpstreamStatus) -> Option<Number>| {
        page.family(name, help);
        for (service, it) in &all {
            let labels: [(&str, &dyn fmt::Display); 2] =
                [("service", service), ("upstream", &it.address)];
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
    family("tandem_upstream_retried_total", "What failed there and was tried once more.", |it| {
        Some(it.retried_total.into())
    });
    let help = "To connect to it, or to the head of a response: a peak EWMA.";
    family("tandem_upstream_latency_seconds", help, |it| {
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
    family("tandem_upstream_cut_total", "What was cut there: drain_max was over.", |it| {
        Some(it.cut_total.into())
    });
}
