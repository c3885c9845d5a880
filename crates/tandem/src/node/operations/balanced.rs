//! Talks about the node's balancers in the API's words, and empties endpoints.
//! In: the configuration, snapshots, a wish. Out: `BalancedStatus`, with the reasons and warnings;
//! another configuration, agreed: so every node follows, and a restart forgets nothing.
//! Not here: the words themselves (`api/balanced.rs`).
//! Tested by: `tests/balanced.rs`.

use super::NodeOperations;
use super::seen::{Seen, reachable};
use crate::api::balanced::{
    BalancedStatus, CertificateStatus, HeldStatus, HttpStatus, OwnersStatus, QuantilesStatus,
    UpstreamState, UpstreamStatus,
};
use crate::api::metrics::UpstreamTimes;
use crate::api::operations::{Outcome, Refused};
use crate::api::status::Endpoint;
use crate::config::{self, Balanced};
use crate::proxy::balancer::{EndpointSnapshot, Snapshot};
use crate::proxy::{CertificateEnd, HttpSnapshot, OwnersSnapshot};
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use tandem_core::clustering::load_balanced::ejection::Condition;
use tandem_core::clustering::load_balanced::quantiles::Quantiles;
use tandem_core::ids::ServiceId;

/// A certificate that ends sooner is a warning.
pub(super) const CERTIFICATE_DAYS: i64 = 14;

/// Whether an endpoint shall be emptied, or used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Draining {
    On,
    Off,
}

impl NodeOperations {
    /// Has an endpoint emptied, or used again.
    pub(super) async fn drain_upstream(
        &self,
        service: &ServiceId,
        upstream: &str,
        draining: Draining,
    ) -> Result<Outcome, Refused> {
        let drain = draining == Draining::On;
        let verb = if drain { "drain" } else { "undrain" };
        let what = format!("cannot {verb} {upstream} of {service}");
        let state = self.agreed_state(&what)?;
        let config = self.running_config(state.config_version, &state.config_text);
        let known = config.balanced.get(service).ok_or_else(|| not_balanced(service, &what))?;
        let found = known.upstreams.iter().find(|it| it.address.to_string() == upstream);
        let found = found.ok_or_else(|| no_such_upstream(known, &what))?;
        if found.drain == drain {
            let because = format!("its drain is {drain} already");
            let instead = "tandem status shows what is left on each endpoint";
            return Err(Problem::new(codes::ALREADY_SO, what, because, instead));
        }
        let text = config::with_drain(&state.config_text, service, &found.address, drain);
        let text = text.map_err(|error| {
            let instead = "write it yourself: tandem config show --running, then config apply";
            Problem::new(codes::OPERATION_FAILED, what, error.to_string(), instead)
        })?;
        let outcome = self.apply_config(&text, Some(state.config_version)).await?;
        let message = if drain {
            let left = self.left(service, upstream);
            let max = known.drain_max.map(config::print_duration).unwrap_or_default();
            format!("{upstream} of {service} gets no new connections; {left}; cut after {max}")
        } else {
            format!("{upstream} of {service} gets connections again, slowly at first")
        };
        Ok(Outcome { message, ..outcome })
    }

    /// How much is left here on what is drained: a name stands for all of its addresses.
    fn left(&self, service: &ServiceId, upstream: &str) -> String {
        let ground = self.ground();
        let snapshots = ground.balancers.snapshots();
        let own = snapshots.into_iter().filter(|it| it.service == *service);
        let drained = own.flat_map(|it| it.endpoints).filter(|it| it.upstream == upstream);
        let left: u32 = drained.map(|it| it.in_flight).sum();
        let me = &ground.me;
        format!("{left} are left on {me}: tandem status --watch, on each node, shows them go")
    }
}

fn not_balanced(service: &ServiceId, what: &str) -> Problem {
    Problem::new(
        codes::NO_SUCH_SERVICE,
        what,
        format!("{service} is no service of kind tcp or http, whose endpoints the file lists"),
        "tandem status lists the services; tandem drain NODE empties a whole node",
    )
}

fn no_such_upstream(known: &Balanced, what: &str) -> Problem {
    if let Some(of) = &known.leads_to {
        let because = format!("its endpoints are the copies of {of}");
        let instead = "tandem drain NODE empties the copy of a node";
        return Problem::new(codes::ARGUMENT, what, because, instead);
    }
    let known: Vec<String> = known.upstreams.iter().map(|it| it.address.to_string()).collect();
    let because = "the agreed configuration has no such endpoint";
    let instead = format!("write it as it is written there: {}", known.join(", "));
    Problem::new(codes::ARGUMENT, what, because, instead)
}

/// Every service that is configured, whether its door is open here or not.
pub(super) fn all(seen: &Seen, snapshots: &[Snapshot]) -> Vec<BalancedStatus> {
    let copies = seen.config.commands.iter();
    let copies = copies.filter_map(|(id, it)| Some((id, it.copies.as_ref()?.door.as_ref()?)));
    let divided = seen.config.commands.iter();
    let divided = divided.filter_map(|(id, it)| {
        let door = it.partitions.as_ref()?.door.as_ref()?;
        Some((id, &door.door))
    });
    let services = seen.config.balanced.iter().chain(copies).chain(divided);
    services
        .map(|(name, config)| {
            let snapshot = snapshots.iter().find(|it| it.service == *name);
            service(seen, (name, config), snapshot)
        })
        .collect()
}

fn service(
    seen: &Seen,
    (name, config): (&ServiceId, &Balanced),
    snapshot: Option<&Snapshot>,
) -> BalancedStatus {
    let door = |node: (&_, &crate::config::Node)| Endpoint {
        node: tandem_core::ids::NodeId::clone(node.0),
        listen: reachable(config.listen.on(node.1), node.1),
        read_listen: None,
    };
    let count = |of: fn(&Snapshot) -> u64| snapshot.map_or(0, of);
    BalancedStatus {
        name: name.clone(),
        kind: config.pairing.kind(),
        clustering: config.pairing.clustering(),
        replication: config.pairing.replication(),
        node: seen.me.clone(),
        balance: match snapshot.and_then(|it| it.owners.as_ref()) {
            Some(_) => "owner".to_owned(),
            None => config.policy.word().to_owned(),
        },
        doors: seen.config.nodes.iter().map(door).collect(),
        sessions: count(|it| it.sessions),
        held: count(|it| it.held),
        sessions_total: count(|it| it.accepted),
        refused_total: count(|it| it.refused),
        expired_total: count(|it| it.expired),
        retried_total: count(|it| it.retried),
        limited_client_total: count(|it| it.limited[0]),
        limited_service_total: count(|it| it.limited[1]),
        upstreams: snapshot.map_or_else(Vec::new, |it| it.endpoints.iter().map(upstream).collect()),
        certificates: snapshot.map_or_else(Vec::new, certificates),
        http: snapshot.and_then(|it| it.http).map(http),
        owners: snapshot.and_then(|it| it.owners.as_ref()).map(owners),
        warnings: snapshot.map_or_else(
            || vec![format!("its door on {} is not open: see tandem doctor", seen.me)],
            |it| warnings(config, it, seen.unix_ms),
        ),
    }
}

fn owners(of: &OwnersSnapshot) -> OwnersStatus {
    let held = of.held.iter();
    OwnersStatus {
        partitions: of.count,
        routed: of.routed,
        held: held.map(|(id, held)| HeldStatus { partition: *id, held: *held }).collect(),
        misdirected_total: of.misdirected,
    }
}

fn certificates(of: &Snapshot) -> Vec<CertificateStatus> {
    let certificate = |it: &CertificateEnd| CertificateStatus {
        file: it.file.display().to_string(),
        expires_unix_s: it.unix_s,
    };
    of.certificates.iter().chain(&of.shown_to_endpoints).map(certificate).collect()
}

/// Days until a certificate ends; less than 0 once it has.
pub(super) fn days_left(of: &CertificateStatus, now_unix_ms: u64) -> i64 {
    days_until(of.expires_unix_s, now_unix_ms)
}

fn days_until(unix_s: i64, now_unix_ms: u64) -> i64 {
    let now_s = i64::try_from(now_unix_ms / 1000).unwrap_or(i64::MAX);
    unix_s.saturating_sub(now_s).div_euclid(86_400)
}

/// Said early enough to get another one, and late enough that what renews itself did so.
fn ends_soon(of: &Snapshot, now_unix_ms: u64) -> Vec<String> {
    let to_clients = of.certificates.iter().map(|it| (it, "clients refuse it"));
    let refused = "endpoints refuse it, and clients are held";
    let all = to_clients.chain(of.shown_to_endpoints.iter().map(|it| (it, refused)));
    let mut warnings = Vec::new();
    for (CertificateEnd { file, unix_s, beside_unix_s }, refused) in all {
        let file = file.display();
        let words = |what: String, end: i64, then: &str| match days_until(end, now_unix_ms) {
            ..0 => Some(format!("{what} has ended: {then}")),
            left @ 0..CERTIFICATE_DAYS => Some(format!("{what} ends in {left} days")),
            _ => None,
        };
        warnings.extend(words(format!("certificate {file}"), *unix_s, refused));
        // Many of its readers need only those before it.
        let beside = format!("a certificate beside the first in {file}");
        warnings.extend(beside_unix_s.and_then(|end| words(beside, end, "who needs it refuses")));
    }
    warnings
}

fn http(of: HttpSnapshot) -> HttpStatus {
    HttpStatus {
        requests_total: of.requests,
        responses_total: of.statuses,
        refused_total: of.refused,
        retried_total: of.retried,
        over_budget_total: of.over_budget,
        expired_total: of.expired,
        timed_out_total: of.timed_out,
        broken_total: of.broken,
        abandoned_total: of.abandoned,
        upgraded_total: of.upgraded,
        floods_total: of.floods,
    }
}

/// How long everything took at each endpoint that had work.
pub(super) fn times<'a>(
    endpoints: impl Iterator<Item = (&'a ServiceId, &'a EndpointSnapshot)>,
) -> Vec<UpstreamTimes> {
    endpoints
        .filter(|(_, it)| it.histogram.counts.iter().any(|count| *count > 0))
        .map(|(service, it)| UpstreamTimes {
            service: service.clone(),
            upstream: it.address.to_string(),
            histogram: it.histogram,
        })
        .collect()
}

/// An endpoint in the API's words.
pub(super) fn upstream(of: &EndpointSnapshot) -> UpstreamStatus {
    let state = match of.condition {
        None => UpstreamState::Removed,
        Some(Condition::Unknown) => UpstreamState::Unchecked,
        Some(Condition::Up) => UpstreamState::Up,
        Some(Condition::Starting) => UpstreamState::Starting,
        Some(Condition::Down) => UpstreamState::Down,
        Some(Condition::Ejected(_)) => UpstreamState::Ejected,
        Some(Condition::Draining) => UpstreamState::Draining,
    };
    let ms = |us: u64| us as f64 / 1000.0;
    let quantiles = |Quantiles { p50_us, p90_us, p99_us }| QuantilesStatus {
        p50_ms: ms(p50_us),
        p90_ms: ms(p90_us),
        p99_ms: ms(p99_us),
    };
    let address = of.address.to_string();
    UpstreamStatus {
        name: Some(of.upstream.clone()).filter(|name| *name != address && !name.is_empty()),
        address,
        state,
        reason: reason(of),
        weight: of.weight,
        share_percent: of.share_percent,
        far: of.far,
        in_flight: of.in_flight,
        rate_per_s: ms(of.rate_milli),
        latency_ms: (of.latency_us > 0).then(|| ms(of.latency_us)),
        quantiles: of.quantiles.map(quantiles),
        sessions_total: of.served,
        failed_total: of.failed,
        retried_total: of.retried,
        ejected_total: of.ejected,
        cut_total: of.cut,
    }
}

pub(super) fn reason(of: &EndpointSnapshot) -> Option<String> {
    let why = of.failure.as_deref().unwrap_or("no answer");
    let Some(condition) = of.condition else {
        return Some(format!("listed no more; {}", left(of)));
    };
    Some(match condition {
        Condition::Up => return None,
        Condition::Unknown => "not asked yet".to_owned(),
        Condition::Starting => format!("comes back slowly: {} % of its share", of.share_percent),
        Condition::Down => format!("its checks fail: {why}"),
        Condition::Ejected(_) => {
            let left = of.ejected_for.unwrap_or_default().as_secs_f64();
            let what = if of.is_slow { "too slow" } else { "its work failed" };
            format!("{what}: {why}; tried again in {left:.1} s")
        }
        Condition::Draining if of.in_flight == 0 => "drained: nothing is left".to_owned(),
        Condition::Draining => left(of),
    })
}

/// What is left at an endpoint that gets no more work, and for how long.
fn left(of: &EndpointSnapshot) -> String {
    let until = of.cut_in.map(|left| std::time::Duration::from_secs(left.as_secs()));
    let until = until.map(crate::config::print_duration);
    let until = until.map_or_else(String::new, |left| format!(", to be cut in {left}"));
    format!("{} are left{until}", of.in_flight)
}

fn warnings(config: &Balanced, snapshot: &Snapshot, now_unix_ms: u64) -> Vec<String> {
    let listed = || snapshot.endpoints.iter().filter_map(|it| Some((it, it.condition?)));
    let mut warnings = Vec::new();
    if is_unserved(snapshot) {
        let held = crate::config::print_duration(config.hold_max);
        warnings.push(format!("no endpoint takes connections: clients wait up to {held}"));
    } else if !listed().any(|(_, condition)| condition.is_in_service()) {
        warnings.push("no endpoint is known to be up: work goes to the least bad".to_owned());
    }
    let unresolved = snapshot.unresolved.iter();
    warnings.extend(unresolved.map(|name| format!("{name} cannot be looked up")));
    if snapshot.sessions >= config.sessions_max as u64 {
        warnings.push("full: sessions_max connections are open, more are closed".to_owned());
    }
    warnings.extend(ends_soon(snapshot, now_unix_ms));
    warnings
}

/// Nobody takes what comes.
pub(super) fn is_unserved(of: &Snapshot) -> bool {
    let mut listed = of.endpoints.iter().filter(|it| it.condition.is_some());
    listed.all(|it| it.share_percent == 0)
}
