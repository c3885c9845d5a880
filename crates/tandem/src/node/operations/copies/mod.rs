//! Talks about commands whose copies run side by side: how many serve, why one does not.
//! In: `ServiceSeen`. Out: parts of `Status` and `Explanation`.
//! Not here: what operators ask for (`verbs.rs`), one copy that runs alone (`moves/singleton.rs`),
//! the door's endpoints (`balanced.rs`).
//! Tested by: `tests/copies.rs`, `tests/copies`.

pub(super) mod divided;
pub(super) mod partition;
pub(super) mod rounds;
pub(super) mod verbs;

use super::moves::singleton::does_not_run;
use super::seen::ServiceSeen;
use crate::api::explain::{Explanation, FailoverNow, Placement, Planned, Reason, Safety};
use crate::api::status::{CopiesStatus, InstanceState, Phase};
use std::collections::BTreeSet;
use tandem_core::clustering::active_passive::singleton::FAILURES_MAX;
use tandem_core::clustering::copies;
use tandem_core::facts::{InstanceFacts, Process};
use tandem_core::ids::{NodeId, Term};
use tandem_core::pairing::Kind;
use tandem_core::reason::list;

/// Divided work as well: a copy that works is as good as any.
pub(super) fn is_copies(service: ServiceSeen<'_>) -> bool {
    service.spec.copies.is_some() || divided::is_divided(service)
}

/// The round that it is in, or the term of what runs alone.
pub(super) fn term(service: ServiceSeen<'_>) -> Term {
    if is_copies(service) { service.state.copies.term } else { service.state.term() }
}

/// The nodes on which a copy shall run now.
fn wanted(service: ServiceSeen<'_>) -> BTreeSet<NodeId> {
    let agreed = &service.seen.agreed;
    let mut wanted = match service.spec.partitions {
        Some(_) => agreed.spec.data_nodes().cloned().collect(),
        None => copies::wanted(&agreed.spec.nodes, service.spec, &service.state.copies),
    };
    wanted.retain(|node| !agreed.draining.contains(node));
    wanted
}

/// The nodes whose copies take work, those that shall have none any more included.
fn serving(service: ServiceSeen<'_>) -> BTreeSet<NodeId> {
    let takes = |node: &NodeId| service.instance(node).is_some_and(copies::takes_work);
    service.seen.agreed.spec.data_nodes().filter(|node| takes(node)).cloned().collect()
}

/// Whether clients can do without the copy of a node for a while.
fn is_spared(service: ServiceSeen<'_>, node: &NodeId) -> bool {
    let agreed = &service.seen.agreed;
    let wanted = copies::wanted(&agreed.spec.nodes, service.spec, &service.state.copies);
    let takes = |node: &NodeId| service.instance(node).is_some_and(copies::takes_work);
    !takes(node) || copies::is_spared(node, (&wanted, &agreed.draining), takes)
}

/// How many there are, and how many there shall be.
pub(super) fn status(service: ServiceSeen<'_>) -> Option<CopiesStatus> {
    service.spec.copies?;
    let (wanted, turn) = (wanted(service), service.state.copies.turn.clone());
    // One that is to end serves besides, and is none of them.
    let serving = serving(service).intersection(&wanted).count();
    Some(CopiesStatus { wanted: wanted.len(), serving, turn })
}

pub(super) fn phase(service: ServiceSeen<'_>) -> Phase {
    if serving(service).is_empty() { Phase::Appointed } else { Phase::Active }
}

pub(super) fn instance_state(service: ServiceSeen<'_>, node: &NodeId) -> InstanceState {
    let Some(own) = service.instance(node) else { return InstanceState::Unknown };
    match own.process {
        Process::Primary if own.withdrawn.is_some() => InstanceState::Draining,
        Process::Primary if own.serving.is_some() => InstanceState::Running,
        // Whatever it is in at this moment, it comes to nothing.
        _ if own.starts_failed >= FAILURES_MAX => InstanceState::CrashLoop,
        Process::Primary | Process::Starting => InstanceState::Starting,
        Process::Stopping => InstanceState::Stopping,
        Process::Stopped if wanted(service).contains(node) => InstanceState::Stopped,
        Process::Stopped | Process::Standby | Process::Promoting => InstanceState::Absent,
    }
}

/// Why a copy is not as it should be; none where it is.
pub(super) fn reason(
    service: ServiceSeen<'_>,
    own: &InstanceFacts,
    planned: Option<String>,
) -> Option<String> {
    if copies::takes_work(own) {
        let is_old = own.pending_restart || own.promoted < service.state.copies.term;
        return is_old.then(|| "it waits for its turn to start anew".to_owned());
    }
    if own.starts_failed > 0 {
        return Some(does_not_run(own));
    }
    planned
}

/// What a human should know.
pub(super) fn warnings(service: ServiceSeen<'_>) -> Vec<String> {
    let (wanted, serving) = (wanted(service), serving(service));
    let mut warnings = divided::warnings(service);
    let (have, want) = (serving.intersection(&wanted).count(), wanted.len());
    if serving.is_empty() {
        warnings.push("no copy serves: clients are held".to_owned());
    } else if have < want {
        let away = list(wanted.difference(&serving));
        warnings.push(format!("{have} of {want} copies serve; not on {away}"));
    }
    let replicas = service.spec.copies.and_then(|copies| copies.replicas).unwrap_or(0) as usize;
    if replicas > wanted.len() {
        let places = wanted.len();
        warnings.push(format!("{replicas} copies are wanted, and {places} nodes can have one"));
    }
    warnings
}

/// Why it is as it is.
pub(super) fn explain(service: ServiceSeen<'_>, plans: Vec<Planned>) -> Explanation {
    let (wanted, serving) = (wanted(service), serving(service));
    let summary = match &service.state.copies.turn {
        Some(turn) => format!("copies start anew, one at a time; it is the turn of {turn}"),
        None => {
            let here: BTreeSet<&NodeId> = serving.intersection(&wanted).collect();
            let besides: BTreeSet<&NodeId> = serving.difference(&wanted).collect();
            let besides = match besides.is_empty() {
                true => String::new(),
                false => format!("; {} serves until it may end", list(besides)),
            };
            let (have, want) = (here.len(), wanted.len());
            format!("{have} of {want} copies serve, on {}{besides}", list(here))
        }
    };
    let placements = service.state.copies.placed.iter().rev();
    let summary = divided::summary(service).unwrap_or(summary);
    Explanation {
        service: service.name.clone(),
        kind: Some(Kind::Command),
        term: service.state.copies.term,
        phase: phase(service),
        primary: None,
        summary,
        scheduled: None,
        no_failover_because: Vec::new(),
        failover_now: FailoverNow {
            safety: Safety::Safe,
            because: Reason::new("every copy serves: doors send nothing to one that is lost"),
            would_choose: None,
            may_lose_bytes: None,
            candidates: Vec::new(),
        },
        plans,
        history: Vec::new(),
        shares: divided::shares_now(service),
        placements: placements
            .map(|line| Placement {
                nodes: line.nodes.iter().cloned().collect(),
                reason: line.reason.clone(),
                at_unix_ms: line.at_unix_ms,
            })
            .collect(),
    }
}
