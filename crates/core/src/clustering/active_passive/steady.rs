//! Decides what a service needs while its primary serves: activation, the commit rule, a planned
//! switchover, emptying a node.
//! In: `ControllerView` with a primary. Out: `Plan`.
//! Keeps: H8, H9 one change of the rule at a time, settled only by the primary's own proof; H39 a
//! switchover ends at its target only if that holds the shutdown checkpoint.
//! Not here: failures (`verdict.rs`), elections (`election.rs`).

use super::candidate::{ballots, preference};
use super::controller::{ControllerView, Plan, Step};
use super::election::{self, Decision};
use super::verdict::{self, Verdict};
use crate::cluster::command::ServiceCommand;
use crate::cluster::state::{Appointment, Cause, Phase, Switchover};
use crate::facts::{Data, Health, InstanceFacts, Process, Stream};
use crate::ids::NodeId;
use crate::reason::{Reason, list};
use crate::replication::primary_replica::sync_quorum::CommitRule;
use crate::replication::primary_replica::{desired_rule, sync_quorum};
use crate::spec::Durability;
use crate::time::Timestamp;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;

/// A switchover begins only to a target that is at most this far behind, in bytes.
pub const SWITCHOVER_LAG_BYTES_MAX: u64 = 16 << 20;
/// How long an automatic switchover may take, in milliseconds.
const SWITCHOVER_PATIENCE_MS: u64 = 15_000;

/// Plans for a primary that serves.
pub(super) fn plan(view: &ControllerView<'_>, appointment: &Appointment, now: Timestamp) -> Plan {
    if let Some(plan) = activate(view, appointment, now) {
        return plan;
    }
    if appointment.phase == Phase::Appointed {
        if let Some(plan) = replace_lost_standbys(view, appointment, now) {
            return plan;
        }
        return Plan::wait(waits_for_barrier(appointment));
    }
    settle(view, appointment, now)
        .or_else(|| change_rule(view, appointment, now))
        .or_else(|| leave_node(view, appointment, now))
        .unwrap_or_else(|| Plan::wait(format!("{} serves", appointment.primary)))
}

fn waits_for_barrier(appointment: &Appointment) -> Reason {
    let (primary, term) = (&appointment.primary, appointment.term);
    let (acks, who) =
        appointment.rules.last().map_or((0, list([])), |rule| (rule.acks, list(&rule.standbys)));
    let text =
        format!("{primary} waits for its barrier in term {term}: {acks} of {who} must confirm");
    Reason::new(text).number("term", term.0).number("acks_needed", acks)
}

/// Clients are let in once the primary's own commit was confirmed under the new rule.
pub(super) fn activate(
    view: &ControllerView<'_>,
    appointment: &Appointment,
    now: Timestamp,
) -> Option<Plan> {
    let instance = view.instance(&appointment.primary, now)?;
    let system = instance.system?;
    let rule = proven_rule(view, appointment, now)?.clone();
    let is_proven =
        instance.serving == Some(appointment.term) && appointment.rules.last() == Some(&rule);
    (appointment.phase == Phase::Appointed && is_proven).then(|| {
        let term = appointment.term;
        let text = format!("{} serves term {term} under {rule}", appointment.primary);
        let reason = Reason::new(text).number("term", term.0);
        let at_unix_ms = view.unix_ms;
        Plan::propose(ServiceCommand::Activate { term, rule, system, at_unix_ms }, reason)
    })
}

/// The rule that the primary proved *after* it knew the present state: an older proof may be of an
/// earlier time under an equal rule, with another one loaded since (H9).
fn proven_rule<'a>(
    view: &'a ControllerView<'_>,
    appointment: &Appointment,
    now: Timestamp,
) -> Option<&'a CommitRule> {
    let instance = view.instance(&appointment.primary, now)?;
    instance.rule.as_ref().filter(|_| instance.revision == view.state.revision)
}

/// The barrier waits for standbys that were there for the election; others may have to do.
fn replace_lost_standbys(
    view: &ControllerView<'_>,
    appointment: &Appointment,
    now: Timestamp,
) -> Option<Plan> {
    let rule = appointment.rules.last()?;
    let streaming = streaming(view, appointment, now);
    (!streaming.is_empty() && !rule.acknowledges(&streaming))
        .then(|| change_rule(view, appointment, now))
        .flatten()
}

fn settle(view: &ControllerView<'_>, appointment: &Appointment, now: Timestamp) -> Option<Plan> {
    let proven = proven_rule(view, appointment, now)?;
    (appointment.rules.len() > 1 && appointment.rules.last() == Some(proven)).then(|| {
        let reason = format!("{} proved {proven}", appointment.primary);
        let (term, rule) = (appointment.term, proven.clone());
        Plan::propose(ServiceCommand::SettleRule { term, rule }, reason)
    })
}

fn change_rule(
    view: &ControllerView<'_>,
    appointment: &Appointment,
    now: Timestamp,
) -> Option<Plan> {
    let last = appointment.rules.last()?;
    let streaming = staying(view, streaming(view, appointment, now));
    let others = view.data_nodes().filter(|node| **node != appointment.primary);
    let everyone: BTreeSet<NodeId> = others.cloned().collect();
    let rule = desired_rule::desired(view.spec.durability, last, &streaming, &everyone);
    (rule != *last).then(|| {
        let there = streaming.len();
        let text = format!("there to confirm: {}; {last} becomes {rule}", list(&streaming));
        let reason = Reason::new(text).number("streaming", there).number("acks_needed", rule.acks);
        Plan::propose(ServiceCommand::ChangeRule { term: appointment.term, rule }, reason)
    })
}

/// A node that is being emptied confirms no commits where the others suffice: then its copy can be
/// thrown away, and nothing that was acknowledged was on it alone.
fn staying(view: &ControllerView<'_>, streaming: BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let wanted = match view.spec.durability {
        Durability::Quorum { acks } | Durability::Preferred { acks } => acks,
        Durability::Async { .. } => 0,
    };
    let staying: BTreeSet<NodeId> = &streaming - view.draining;
    if staying.len() >= wanted { staying } else { streaming }
}

/// Standbys that both ends agree are fed, so that a half-cut link counts as cut (H33, H34).
fn streaming(
    view: &ControllerView<'_>,
    appointment: &Appointment,
    now: Timestamp,
) -> BTreeSet<NodeId> {
    let Some(primary) = view.instance(&appointment.primary, now) else { return BTreeSet::new() };
    let is_fed = |node: &&NodeId| {
        let seen_by_primary = primary.replicas.get(*node).is_some_and(|r| r.streaming);
        let own = view.instance(node, now);
        seen_by_primary
            && own.is_some_and(|own| {
                let age_max = view.spec.timing.suspicion;
                own.upstream == Some((appointment.primary.clone(), appointment.term))
                    && matches!(own.stream, Stream::Connected(age) if age <= age_max)
                    && own.promised <= appointment.term
            })
    };
    view.data_nodes().filter(|node| **node != appointment.primary).filter(is_fed).cloned().collect()
}

/// A node that is being emptied hands over, and so does one whose disk is full or whose owner wants
/// it never primary, if a peer can do better: otherwise a move would help nobody (H27).
fn leave_node(
    view: &ControllerView<'_>,
    appointment: &Appointment,
    now: Timestamp,
) -> Option<Plan> {
    let primary = &appointment.primary;
    let is_full = view.instance(primary, now)?.health == Health::DiskFull;
    let never = |node: &NodeId| view.nodes.get(node).is_some_and(|spec| spec.priority == 0);
    let why = match (view.draining.contains(primary), is_full, never(primary)) {
        (true, _, _) => "it is being emptied",
        // Nobody asked for these: while an operator has paused the service it stays where it is.
        (false, _, _) if view.state.paused => return None,
        (false, true, _) => "the disk is full",
        (false, false, true) => "its owner wants it never primary (priority 0)",
        (false, false, false) => return None,
    };
    let end = view.instance(primary, now)?.flushed;
    let can_take_over = |node: &NodeId| {
        let has_room = |own: &InstanceFacts| {
            own.health == Health::Good
                && end.bytes_ahead_of(own.flushed) <= SWITCHOVER_LAG_BYTES_MAX
        };
        view.instance(node, now).is_some_and(has_room)
    };
    // Before the move is done the target holds everything, so what each holds now does not matter.
    let to = streaming(view, appointment, now)
        .into_iter()
        .filter(|node| !view.draining.contains(node) && !never(node) && can_take_over(node))
        .max_by_key(|node| preference(view.nodes, primary, node))?;
    let reason = format!("{primary} hands over to {to}: {why}");
    let deadline_unix_ms = view.unix_ms + SWITCHOVER_PATIENCE_MS;
    Some(Plan::propose(ServiceCommand::RequestSwitchover { to, deadline_unix_ms }, reason))
}

/// Plans a switchover that is under way.
pub(super) fn switch_over(
    view: &ControllerView<'_>,
    appointment: &Appointment,
    switchover: &Switchover,
    now: Timestamp,
) -> Plan {
    let cancel = |why: String| Plan::propose(ServiceCommand::CancelSwitchover, why);
    if super::controller::is_over(switchover.deadline_unix_ms, view) {
        return cancel(format!("the switchover to {} took too long", switchover.to));
    }
    let Some(primary) = view.instance(&appointment.primary, now) else {
        return cancel(format!("{} does not answer", appointment.primary));
    };
    let Some(target) = view.instance(&switchover.to, now).filter(|i| i.data == Data::Present)
    else {
        return cancel(format!("{} does not answer or has no data", switchover.to));
    };
    match primary.process {
        Process::Primary => {
            if !matches!(verdict::judge(view, appointment, now), Verdict::Serving) {
                return cancel(format!("{} does not serve", appointment.primary));
            }
            let lag_bytes = primary.flushed.bytes_ahead_of(target.flushed);
            let is_fed = streaming(view, appointment, now).contains(&switchover.to);
            if !is_fed {
                let (to, primary) = (&switchover.to, &appointment.primary);
                return cancel(format!("{to} is not fed by {primary}"));
            }
            if lag_bytes > SWITCHOVER_LAG_BYTES_MAX {
                let reason = Reason::new(format!("{} is {lag_bytes} bytes behind", switchover.to))
                    .number("lag_bytes", lag_bytes)
                    .number("lag_bytes_max", SWITCHOVER_LAG_BYTES_MAX);
                return Plan::propose(ServiceCommand::CancelSwitchover, reason);
            }
            Plan::wait(format!("{} hands over to {}", appointment.primary, switchover.to))
        }
        Process::Stopping => Plan::wait(format!("{} stops", appointment.primary)),
        Process::Stopped if primary.stopped_cleanly => {
            stop_for_switchover(view, appointment, switchover, now)
        }
        Process::Stopped | Process::Starting | Process::Standby | Process::Promoting => {
            cancel(format!("{} did not stop as it should", appointment.primary))
        }
    }
}

/// The old primary is down and said where its log ends: the target must hold all of it.
fn stop_for_switchover(
    view: &ControllerView<'_>,
    appointment: &Appointment,
    switchover: &Switchover,
    now: Timestamp,
) -> Plan {
    let followed = view.instance(&switchover.to, now).map(|own| own.followed);
    if followed != Some(appointment.term) {
        // Positions of two logs that went different ways cannot be compared.
        let (to, primary) = (&switchover.to, &appointment.primary);
        let text = format!("{to} does not follow {primary} in term {}", appointment.term);
        let reason = Reason::new(text).number("term", appointment.term.0);
        return Plan::propose(ServiceCommand::CancelSwitchover, reason);
    }
    let end = view.instance(&appointment.primary, now).map_or(crate::lsn::Lsn::ZERO, |i| i.flushed);
    let have = view.instance(&switchover.to, now).map_or(crate::lsn::Lsn::ZERO, |i| i.flushed);
    if have < end {
        let (to, lag_bytes) = (&switchover.to, end.bytes_ahead_of(have));
        let is_fed = view.instance(to, now).is_some_and(|i| i.stream != Stream::None);
        if !is_fed {
            // What it lacks, nobody is left to send: the old primary resumes (H39).
            let text = format!("{to} ended at {have}, {} at {end}", appointment.primary);
            let reason = Reason::new(text).number("lag_bytes", lag_bytes);
            return Plan::propose(ServiceCommand::CancelSwitchover, reason);
        }
        let text = format!("{to} is at {have} and must reach {end} first (H39)");
        return Plan::wait(Reason::new(text).number("lag_bytes", lag_bytes));
    }
    let term = appointment.term.next().max(view.promised_max());
    let ballots = ballots(view, term, now);
    let holders = ballots.holders();
    // The old primary ended with its whole log on the target and never promotes twice for one term,
    // so the target alone is enough, unless a rule of an earlier primary is still open.
    let own_rules = appointment.rules.iter().all(|rule| rule.primary == appointment.primary);
    let elects = own_rules || sync_quorum::elects(&appointment.rules, &holders);
    if !holders.contains(&switchover.to) || !elects {
        let steps = view
            .nodes
            .keys()
            .filter(|node| **node != appointment.primary && !ballots.promised.contains(*node))
            .filter(|node| view.instance(node, now).is_some_and(|i| i.promised <= term))
            .map(|node| Step::Recruit { node: node.clone(), term })
            .collect();
        let reason = format!("{} takes over at {end}", switchover.to);
        return Plan { steps, reason: Reason::new(reason).number("election_term", term.0) };
    }
    let why = Reason::new("planned switchover, the old primary stopped cleanly");
    let decision = Decision { term, cause: Cause::Switchover, why: &why, ballots: &ballots };
    election::appoint(view, appointment, &switchover.to, decision, now)
}
