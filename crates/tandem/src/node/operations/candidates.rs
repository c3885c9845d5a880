//! Decides whom an operator may move a service to, and what a failover now would do.
//! In: `ServiceSeen`. Out: a target or a refusal; `FailoverNow` with every candidate's reason.
//! Keeps: INV-4 a failover counts as safe only where the nodes that can be asked meet every commit
//! quorum; H1 in async mode what may be lost is said in bytes and in time; H16 positions before
//! priorities.
//! Not here: the election itself (`tandem_core::clustering::active_passive`).
//! Tested by: `tests/candidates.rs`.

use super::moves::singleton;
use super::refusals;
use super::seen::ServiceSeen;
use crate::api::explain::{Candidate, FailoverNow, Reason, Safety};
use crate::telemetry::codes;
use crate::telemetry::problem::{Code, Problem};
use std::collections::BTreeSet;
use std::time::Duration;
use tandem_core::cluster::state::Appointment;
use tandem_core::clustering::active_passive::SWITCHOVER_LAG_BYTES_MAX;
use tandem_core::clustering::active_passive::candidate::preference;
use tandem_core::clustering::active_passive::loss::{Loss, loss};
use tandem_core::facts::{Data, InstanceFacts, Position, Process, Stream};
use tandem_core::ids::NodeId;
use tandem_core::replication::primary_replica::sync_quorum;
use tandem_core::spec::{Durability, NodeRole};

/// Why a node cannot take over now.
pub(super) struct Objection {
    pub code: Code,
    pub because: String,
}

impl Objection {
    pub fn new(because: impl Into<String>) -> Option<Self> {
        Some(Self { code: codes::TARGET_NOT_ELIGIBLE, because: because.into() })
    }
}

/// The target of a planned switchover: the named one, or the best.
pub(super) fn switchover_target(
    service: ServiceSeen<'_>,
    to: Option<&NodeId>,
) -> Result<NodeId, Problem> {
    let name = service.name;
    let what = format!("cannot switch {name} over");
    let Some(appointment) = service.appointment() else {
        return Err(refusals::no_primary(name, &what));
    };
    if service.serving_primary().is_none() {
        return Err(Problem::new(
            codes::TARGET_NOT_ELIGIBLE,
            what,
            format!(
                "the {} {} does not serve, so it cannot end cleanly",
                service.holder_word(),
                appointment.primary
            ),
            format!("tandem explain {name} says why; tandem failover {name} replaces it"),
        ));
    }
    match to {
        Some(to) => named_target(service, appointment, to),
        None => best_target(service, appointment),
    }
}

fn named_target(
    service: ServiceSeen<'_>,
    appointment: &Appointment,
    to: &NodeId,
) -> Result<NodeId, Problem> {
    let name = service.name;
    let what = format!("cannot switch {name} over to {to}");
    let Some(spec) = service.seen.agreed.spec.nodes.get(to) else {
        return Err(refusals::no_such_node(to));
    };
    if spec.role == NodeRole::Witness {
        return Err(refusals::witness(to, &what));
    }
    if appointment.primary == *to {
        let because = format!("{to} is the {} of {name} already", service.holder_word());
        return Err(Problem::new(codes::ALREADY_SO, what, because, "name another node"));
    }
    match objection(service, appointment, to) {
        None => Ok(to.clone()),
        Some(Objection { code, because }) => {
            let advice = format!("wait, or name another node; tandem explain {name} lists them");
            Err(Problem::new(code, what, because, advice))
        }
    }
}

fn best_target(service: ServiceSeen<'_>, appointment: &Appointment) -> Result<NodeId, Problem> {
    let nodes = &service.seen.agreed.spec.nodes;
    let (mut eligible, mut objections) = (Vec::new(), Vec::new());
    for node in service.seen.agreed.spec.data_nodes().filter(|it| **it != appointment.primary) {
        match objection(service, appointment, node) {
            None => eligible.push(node),
            Some(objection) => objections.push(format!("{node}: {}", objection.because)),
        }
    }
    let key = |node: &&NodeId| preference(nodes, &appointment.primary, node);
    // All of them hold everything before the move is done, so the owner's wish comes first.
    eligible.into_iter().max_by_key(key).cloned().ok_or_else(|| {
        Problem::new(
            codes::TARGET_NOT_ELIGIBLE,
            format!("cannot switch {} over", service.name),
            format!("no standby can take over: {}", objections.join("; ")),
            format!("wait until one streams; tandem explain {} lists them", service.name),
        )
    })
}

/// What keeps a node from being the target of a switchover.
fn objection(
    service: ServiceSeen<'_>,
    appointment: &Appointment,
    node: &NodeId,
) -> Option<Objection> {
    if service.seen.agreed.draining.contains(node) {
        return Objection::new(format!("{node} is being emptied"));
    }
    if service.seen.agreed.spec.nodes.get(node).is_some_and(|spec| spec.priority == 0) {
        return Objection::new(format!("{node} has priority 0: its owner wants it never primary"));
    }
    if singleton::is_command(service) {
        return singleton::objection(service, node);
    }
    let Some(own) = service.instance(node) else {
        return Objection::new(format!("{node} was not heard lately"));
    };
    if let Some(because) = not_standby(own) {
        return Objection::new(because);
    }
    let follows = own.upstream == Some((appointment.primary.clone(), appointment.term));
    let suspicion = service.spec.timing.suspicion;
    if !follows || !matches!(own.stream, Stream::Connected(age) if age <= suspicion) {
        return Objection::new(format!("{node} does not stream from {}", appointment.primary));
    }
    let primary = service.instance(&appointment.primary)?;
    if !primary.replicas.get(node).is_some_and(|replica| replica.streaming) {
        return Objection::new(format!("{} does not feed {node} yet", appointment.primary));
    }
    let lag_bytes = primary.flushed.bytes_ahead_of(own.flushed);
    (lag_bytes > SWITCHOVER_LAG_BYTES_MAX).then(|| Objection {
        code: codes::TARGET_LAGS,
        because: format!(
            "{node} is {lag_bytes} bytes behind, over the limit of {SWITCHOVER_LAG_BYTES_MAX}"
        ),
    })
}

fn not_standby(own: &InstanceFacts) -> Option<String> {
    match &own.data {
        Data::Quarantined { reason } => return Some(format!("its data is quarantined: {reason}")),
        Data::Suspect { reason } => return Some(format!("its disk is suspect: {reason}")),
        Data::Foreign => return Some("its data was not made here".to_owned()),
        Data::Copying { .. } => return Some("its data is being copied".to_owned()),
        Data::Empty | Data::Mixed => return Some("it has no usable data".to_owned()),
        Data::Witness => return Some("it holds no data".to_owned()),
        Data::Present => {}
    }
    (own.process != Process::Standby).then(|| {
        let does = match own.process {
            Process::Stopped => "is stopped",
            Process::Starting => "is starting",
            Process::Promoting | Process::Primary => "is a primary",
            Process::Stopping => "is stopping",
            Process::Standby => "is a standby",
        };
        format!("its instance {does}")
    })
}

/// What keeps a server from starting, as far as its node can tell the others.
pub(super) fn does_not_start(service: ServiceSeen<'_>, own: &InstanceFacts) -> String {
    if singleton::is_command(service) {
        return singleton::does_not_run(own);
    }
    let failed = match own.starts_failed {
        1 => "its last start failed".to_owned(),
        starts => format!("its last {starts} starts failed"),
    };
    format!("{failed}: see postgres.log in its folder, or tandem doctor")
}

/// What a failover at this moment would do.
pub(super) fn failover_now(service: ServiceSeen<'_>) -> FailoverNow {
    let Some(appointment) = service.appointment() else {
        return FailoverNow {
            safety: Safety::Impossible,
            because: Reason::new(format!("there is no {} yet", service.holder_word())),
            would_choose: None,
            may_lose_bytes: None,
            candidates: Vec::new(),
        };
    };
    if singleton::is_command(service) {
        return singleton::failover_now(service, appointment);
    }
    let (mut candidates, mut holders) = (Vec::new(), BTreeSet::new());
    for node in service.seen.agreed.spec.data_nodes().filter(|it| **it != appointment.primary) {
        let own = service.instance(node);
        let objection = match own {
            None => Some(format!("{node} was not heard lately")),
            Some(own) if own.starts_failed > 0 => Some(does_not_start(service, own)),
            // A stopped one is started to vote.
            Some(own) if own.process == Process::Stopped && own.data == Data::Present => None,
            Some(own) => not_standby(own),
        };
        if objection.is_none() {
            holders.insert(node.clone());
        }
        candidates.push(Candidate {
            node: node.clone(),
            eligible: objection.is_none(),
            lsn: own.filter(|own| own.system.is_some()).map(|own| own.flushed),
            lag_bytes: own.and_then(|own| behind(service, appointment, own)),
            because: objection.unwrap_or_else(|| "reachable, and holds data".to_owned()),
        });
    }
    let best = most_advanced(service, appointment, &holders);
    let (safety, because, may_lose_bytes) = judge(service, appointment, &holders, best.as_ref());
    FailoverNow { safety, because, would_choose: best, may_lose_bytes, candidates }
}

/// Against the last position that the primary told anyone.
fn behind(service: ServiceSeen<'_>, appointment: &Appointment, own: &InstanceFacts) -> Option<u64> {
    let primary = service.seen.facts.get(&appointment.primary)?.last_known();
    Some(primary.instances.get(service.name)?.flushed.bytes_ahead_of(own.flushed))
}

/// As an election chooses: what each holds comes first, then the owner's wish (priority, zone).
fn most_advanced(
    service: ServiceSeen<'_>,
    appointment: &Appointment,
    holders: &BTreeSet<NodeId>,
) -> Option<NodeId> {
    let agreed = &service.seen.agreed;
    let key = |node: &&NodeId| {
        let own = service.instance(node);
        (
            own.map(|own| (own.data_term, own.flushed)),
            !agreed.draining.contains(*node),
            preference(&agreed.spec.nodes, &appointment.primary, node),
        )
    };
    holders.iter().max_by_key(key).cloned()
}

/// As an election in async mode measures it (H1).
fn known_loss(service: ServiceSeen<'_>, appointment: &Appointment, best: &NodeId) -> Option<Loss> {
    let own = service.instance(best)?;
    let position = Position { data_term: own.data_term, flushed: own.flushed };
    loss(&service.view(), &appointment.primary, position).ok()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn judge(
    service: ServiceSeen<'_>,
    appointment: &Appointment,
    holders: &BTreeSet<NodeId>,
    best: Option<&NodeId>,
) -> (Safety, Reason, Option<u64>) {
    let Some(best) = best else {
        return (
            Safety::Impossible,
            Reason::new("no other node holds data that can be used"),
            None,
        );
    };
    let lag_bytes = service.instance(best).and_then(|own| behind(service, appointment, own));
    let names: Vec<&str> = holders.iter().map(NodeId::as_str).collect();
    let rules: Vec<String> = appointment.rules.iter().map(ToString::to_string).collect();
    match service.spec.durability {
        Durability::Quorum { .. } | Durability::Preferred { .. } => {
            if sync_quorum::elects(&appointment.rules, holders) {
                let text = "the nodes that can be asked meet every commit quorum";
                let because = Reason::new(text).number("holders", names).number("rules", rules);
                return (Safety::Safe, because, Some(0));
            }
            let text = "the nodes that can be asked do not meet every commit quorum, so an \
                        acknowledged commit may be missing on all of them";
            let because = Reason::new(text).number("holders", names).number("rules", rules);
            (Safety::Unsafe, because, lag_bytes)
        }
        Durability::Async { lag_bytes_max, lag_max } => {
            let lost = known_loss(service, appointment, best);
            let lag_bytes = lost.map(|lost| lost.bytes);
            let text = match lost {
                Some(Loss { lasted: Some(_), .. }) => "",
                Some(Loss { lasted: None, .. }) => ", and since when it lacks something is unknown",
                None => ", and how far it had come is unknown",
            };
            let text = format!("commits are confirmed by the primary alone (async){text}");
            let because = Reason::new(text)
                .number("lag_bytes", lag_bytes)
                .number("lag_bytes_max", lag_bytes_max)
                .number("lag_ms", lost.and_then(|lost| lost.lasted).map(millis))
                .number("lag_ms_max", millis(lag_max));
            (Safety::Unsafe, because, lag_bytes)
        }
    }
}
