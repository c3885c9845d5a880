//! Decides an election: whose promises are needed, and who wins.
//! In: the rules that may be in force, and the ballots. Out: recruits, then one appointment.
//! Keeps: INV-4, INV-11: nobody is appointed before the promises meet every commit quorum, so the
//! old primary can acknowledge nothing, however alive it is, and the winner lacks nothing (H7,
//! H15, H17). Where no quorum confirms (`Async`, once its rule is in force), a majority must have
//! promised after the lease passed (`cluster/lease.rs`), and the winner may lack at most the bounds
//! in bytes and in time (H1); a rule of an earlier mode that still may be in force is met as ever.
//! Not here: whether an election is due (`controller.rs`, `verdict.rs`).
//! Tested by: the simulator, whose mutations drop the promise and the meeting of quorums.

use super::candidate::{Ballots, ballots};
use super::controller::{ControllerView, Plan, Step};
use super::loss::{self, Loss, Unknown};
use crate::cluster::command::ServiceCommand;
use crate::cluster::state::{Appointment, Cause, Forced, Phase};
use crate::facts::Data;
use crate::ids::{NodeId, Term};
use crate::reason::{Reason, list};
use crate::replication::primary_replica::desired_rule;
use crate::spec::Durability;
use crate::time::Timestamp;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

/// Recruits, or appoints once enough have promised.
pub(super) fn plan(
    view: &ControllerView<'_>,
    appointment: &Appointment,
    cause: Cause,
    why: &Reason,
    now: Timestamp,
) -> Plan {
    let term = appointment.term.next().max(view.promised_max());
    let ballots = ballots(view, term, now);
    let ballots = standing_in(view, appointment, ballots);
    let forced = view.state.forced.as_ref();
    let obstacle = obstacle(view, appointment, &ballots, now);
    let accepted =
        forced.is_some_and(|forced| forced.accept_loss) && heard_all(view, &ballots, now);
    if let Some(obstacle) = obstacle.filter(|_| !accepted) {
        return recruit(view, term, &ballots, why.clone().and(&obstacle), now);
    }
    let winner = match demanded(view, appointment, &ballots) {
        Ok(winner) => winner,
        Err(reason) => return recruit(view, term, &ballots, why.clone().and(&reason), now),
    };
    let Some(winner) = winner.or_else(|| ballots.best(view, &appointment.primary)) else {
        return recruit(view, term, &ballots, why.clone(), now);
    };
    appoint(view, appointment, &winner, Decision { term, cause, why, ballots: &ballots }, now)
}

/// Leaves a primary that serves in place, under a term that the promised nodes may follow.
pub(super) fn reaffirm(view: &ControllerView<'_>, appointment: &Appointment) -> Plan {
    let term = view.promised_max();
    let reason = format!(
        "{} serves, and an election for term {term} was begun: it goes on as primary",
        appointment.primary
    );
    Plan::propose(
        ServiceCommand::Appoint {
            appointment: Appointment { term, ..appointment.clone() },
            cause: Cause::Resumed,
            reason: reason.clone(),
            system: None,
            at_unix_ms: view.unix_ms,
        },
        Reason::new(reason).number("term", term.0),
    )
}

/// The appointed primary was elected with everything and has followed nobody since, so its own
/// ballot stands in for older rules whose standbys were overwritten by it or are gone. But then
/// only it, or who holds its barrier, may win.
fn standing_in(
    view: &ControllerView<'_>,
    appointment: &Appointment,
    mut ballots: Ballots,
) -> Ballots {
    let holders = ballots.holders();
    if !meets_all(view, appointment, &holders) && holders.contains(&appointment.primary) {
        ballots.positions.retain(|node, position| {
            *node == appointment.primary || position.data_term >= appointment.term
        });
    }
    ballots
}

/// Whether nobody outside `holders` can acknowledge under any rule that is met by promises. In
/// `Async` mode a rule without confirmations is fenced by its primary's lease instead.
fn meets_all(
    view: &ControllerView<'_>,
    appointment: &Appointment,
    holders: &BTreeSet<NodeId>,
) -> bool {
    let is_async = matches!(view.spec.durability, Durability::Async { .. });
    let mut rules = appointment.rules.iter().filter(|rule| !is_async || rule.acks > 0);
    (is_async || !appointment.rules.is_empty()) && rules.all(|rule| rule.elects(holders))
}

/// What keeps the ballots from electing, if anything.
pub(super) fn obstacle(
    view: &ControllerView<'_>,
    appointment: &Appointment,
    ballots: &Ballots,
    now: Timestamp,
) -> Option<Reason> {
    let holders = ballots.holders();
    if !meets_all(view, appointment, &holders) && !holders.contains(&appointment.primary) {
        let rules: Vec<String> = appointment.rules.iter().map(|rule| format!("{rule}")).collect();
        let text = format!(
            "promised with data: {}; that does not meet every commit quorum of {}",
            list(&holders),
            rules.join(" and ")
        );
        let reason = Reason::new(text).number("holders", holders.len());
        return Some(reason.number("rules", rules.len()));
    }
    if !matches!(view.spec.durability, Durability::Async { .. })
        || appointment.rules.iter().all(|rule| rule.acks > 0)
    {
        return None;
    }
    let majority = view.nodes.len() / 2 + 1;
    if ballots.promised.len() < majority {
        let promised = ballots.promised.len();
        let reason = Reason::new(format!("{promised} of {majority} voters promised"));
        return Some(reason.number("promised", promised).number("needed", majority));
    }
    too_far_behind(view, appointment, ballots, now)
}

/// The bounds of `Async` (H1), against the furthest that the old primary told anyone.
fn too_far_behind(
    view: &ControllerView<'_>,
    appointment: &Appointment,
    ballots: &Ballots,
    now: Timestamp,
) -> Option<Reason> {
    let Durability::Async { lag_bytes_max, lag_max } = view.spec.durability else { return None };
    // It votes with all that it has, and whoever wins has at least that. What it was heard to have
    // besides is the beginning of a record, or a promotion that a crash undid; where it is more, it
    // lost some, and whoever is yet to vote may hold that.
    let it_votes = ballots.positions.contains_key(&appointment.primary);
    if it_votes && heard_all(view, ballots, now) {
        return None;
    }
    let best = ballots.positions.values().max()?;
    let Loss { bytes, lasted } = match loss::loss(view, &appointment.primary, *best) {
        Ok(loss) => loss,
        Err(_) if it_votes => return None,
        Err(Unknown::Term(term)) => {
            let reason = Reason::new(format!("{}", Unknown::Term(term)));
            return Some(reason.number("data_term", term.0));
        }
        Err(unknown) => return Some(format!("{unknown}").into()),
    };
    if bytes > lag_bytes_max {
        let text = format!("the best is {bytes} bytes behind, over the limit of {lag_bytes_max}");
        let reason = Reason::new(text).number("lag_bytes", bytes);
        return Some(reason.number("lag_bytes_max", lag_bytes_max));
    }
    if it_votes {
        return None;
    }
    let Some(lasted) = lasted else {
        let primary = &appointment.primary;
        let text = format!("since when the best lacks what {primary} wrote is not known here");
        return Some(text.into());
    };
    (lasted > lag_max).then(|| {
        let (lasted, most) = (lasted.as_millis(), lag_max.as_millis());
        let text =
            format!("the best lacks what was written in {lasted} ms, over the limit of {most} ms");
        Reason::new(text).number("lag_ms", lasted).number("lag_ms_max", most)
    })
}

/// An operator who accepts loss still gets the best of everyone that answers.
fn heard_all(view: &ControllerView<'_>, ballots: &Ballots, now: Timestamp) -> bool {
    !ballots.positions.is_empty()
        && view.data_nodes().all(|node| {
            view.instance(node, now).is_none_or(|instance| instance.data != Data::Present)
                || ballots.positions.contains_key(node)
        })
}

/// The node that an operator named, if it lacks nothing that another has, or loss is accepted.
fn demanded(
    view: &ControllerView<'_>,
    appointment: &Appointment,
    ballots: &Ballots,
) -> Result<Option<NodeId>, Reason> {
    let forced = view.state.forced.as_ref();
    let Some(Forced { to: Some(to), accept_loss, .. }) = forced else { return Ok(None) };
    let best =
        ballots.best(view, &appointment.primary).and_then(|best| ballots.positions.get(&best));
    match (ballots.positions.get(to), best) {
        (Some(own), Some(best)) if own >= best || *accept_loss => Ok(Some(to.clone())),
        (Some(own), Some(best)) => {
            let term = best.data_term;
            if own.data_term < term {
                // Positions in two logs that went different ways cannot be compared.
                let text = format!(
                    "{to} lacks what term {term} began with: another node, or accept the loss"
                );
                return Err(Reason::new(text).number("data_term", term.0));
            }
            let text = format!(
                "{to} is at {}, behind {}: another node, or accept the loss",
                own.flushed, best.flushed
            );
            let lag_bytes = best.flushed.bytes_ahead_of(own.flushed);
            Err(Reason::new(text).number("lag_bytes", lag_bytes))
        }
        (None, _) | (_, None) => Err(format!("{to} has not promised yet").into()),
    }
}

fn recruit(
    view: &ControllerView<'_>,
    term: Term,
    ballots: &Ballots,
    why: Reason,
    now: Timestamp,
) -> Plan {
    let steps = view
        .nodes
        .keys()
        .filter(|node| !ballots.promised.contains(*node))
        .filter(|node| view.instance(node, now).is_some_and(|i| i.promised <= term))
        .map(|node| Step::Recruit { node: node.clone(), term })
        .collect();
    let reason = why.within(|why| format!("electing for term {term}: {why}"));
    Plan { steps, reason: reason.number("election_term", term.0) }
}

pub(super) struct Decision<'a> {
    pub term: Term,
    pub cause: Cause,
    pub why: &'a Reason,
    pub ballots: &'a Ballots,
}

pub(super) fn appoint(
    view: &ControllerView<'_>,
    appointment: &Appointment,
    winner: &NodeId,
    decision: Decision<'_>,
    now: Timestamp,
) -> Plan {
    let others = |nodes: &mut dyn Iterator<Item = &NodeId>| -> BTreeSet<NodeId> {
        nodes.filter(|node| *node != winner).cloned().collect()
    };
    let reachable =
        others(&mut decision.ballots.positions.keys().filter(|n| view.fresh(n, now).is_some()));
    let everyone = others(&mut view.data_nodes());
    let rule = desired_rule::initial(view.spec.durability, winner, reachable, everyone);
    // Until the winner's barrier is acknowledged, a commit of the old term may exist only where the
    // old rules put it: the next election, should there be one, must meet those as well.
    let mut rules = appointment.rules.clone();
    rules.retain(|older| *older != rule);
    rules.push(rule);
    let position = decision.ballots.positions.get(winner);
    let promised = &decision.ballots.promised;
    let text = format!(
        "{winner} is the most advanced of {} at {}",
        list(promised),
        position.map_or(crate::lsn::Lsn::ZERO, |p| p.flushed)
    );
    let reason = Reason::new(text).number("promised", promised.len());
    let reason = decision.why.clone().and(&reason).number("election_term", decision.term.0);
    Plan::propose(
        ServiceCommand::Appoint {
            appointment: Appointment {
                term: decision.term,
                primary: winner.clone(),
                rules,
                phase: Phase::Appointed,
            },
            cause: decision.cause,
            reason: reason.to_string(),
            system: None,
            at_unix_ms: view.unix_ms,
        },
        reason,
    )
}
