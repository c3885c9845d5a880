//! Decides who makes the first copy of a service's data.
//! In: `ControllerView` without an appointment. Out: a founder, then the first appointment.
//! Keeps: H30 data that already had a term is never founded over; H17 no founding before every
//! data node has said what it holds.
//! Not here: how a copy is made (the PostgreSQL adapter).

use super::controller::{ControllerView, Plan};
use crate::cluster::command::ServiceCommand;
use crate::cluster::state::{Appointment, Cause, Phase};
use crate::facts::{Data, Process};
use crate::ids::{NodeId, Term};
use crate::reason::Reason;
use crate::replication::primary_replica::desired_rule;
use crate::time::Timestamp;
use alloc::collections::BTreeSet;
use alloc::format;
use core::cmp::Reverse;
use core::time::Duration;

pub(super) fn plan(view: &ControllerView<'_>, now: Timestamp) -> Plan {
    match &view.state.founder {
        Some(founder) if view.nodes.contains_key(founder) => appoint_founder(view, founder, now),
        // Removed from the configuration since.
        Some(_) => choose_founder(view, now),
        None => choose_founder(view, now),
    }
}

fn choose_founder(view: &ControllerView<'_>, now: Timestamp) -> Plan {
    let mut holder = None;
    for node in view.data_nodes() {
        let Some(instance) = view.instance(node, now) else {
            return Plan::wait(format!("before founding, {node} must say what data it holds"));
        };
        if instance.data_term > Term(0) || instance.promised > Term(0) {
            let text = format!(
                "{node} holds data of term {}, but nothing is agreed: the agreed state was lost; \
                 restore it or empty the data directories",
                instance.data_term
            );
            return Plan::wait(Reason::new(text).number("data_term", instance.data_term.0));
        }
        match (&instance.data, holder) {
            (Data::Empty, _) => {}
            (Data::Quarantined { reason }, _) => {
                return Plan::wait(format!("the data of {node} is quarantined: {reason}"));
            }
            (Data::Suspect { reason }, _) => {
                return Plan::wait(format!("the disk of {node} is suspect: {reason}"));
            }
            (_, None) => holder = Some(node),
            (_, Some(other)) => {
                return Plan::wait(format!("both {other} and {node} hold data: empty one of them"));
            }
        }
    }
    match holder.or_else(|| view.data_nodes().max_by_key(|node| by_priority(view, node))) {
        Some(node) => Plan::propose(
            ServiceCommand::ChooseFounder { node: node.clone() },
            format!("{node} makes the first copy"),
        ),
        None => Plan::wait("no node holds data"),
    }
}

/// How long a founder may be silent before another one is chosen.
const FOUNDER_PATIENCE: Duration = Duration::from_secs(30);

/// A founder that is lost before the first appointment took nothing with it but its own copy, which
/// nobody ever wrote to; one that brought data of its owner is waited for.
fn replace_founder(view: &ControllerView<'_>, founder: &NodeId, now: Timestamp) -> Plan {
    let wait =
        |why| Plan::wait(format!("{founder} makes the first copy, and does not answer{why}"));
    let Some(told) = view.facts.get(founder) else {
        return wait("; what it holds is not known: wait, or take it out of the configuration");
    };
    let own = told.last_known().instances.get(view.service);
    let brought_nothing = own.is_some_and(|own| matches!(own.data, Data::Empty | Data::Mixed));
    if !brought_nothing || told.age(now) < FOUNDER_PATIENCE {
        return wait("");
    }
    let is_empty = |node: &&NodeId| {
        view.instance(node, now)
            .is_some_and(|own| own.data == Data::Empty && own.promised == Term(0))
    };
    match view.data_nodes().filter(is_empty).max_by_key(|node| by_priority(view, node)) {
        Some(node) => Plan::propose(
            ServiceCommand::ChooseFounder { node: node.clone() },
            format!("{founder} was lost before its copy was made: {node} makes the first copy"),
        ),
        None => wait(", and no other node is empty"),
    }
}

fn by_priority(view: &ControllerView<'_>, node: &NodeId) -> (u32, Reverse<NodeId>) {
    (view.nodes.get(node).map_or(0, |spec| spec.priority), Reverse(node.clone()))
}

fn appoint_founder(view: &ControllerView<'_>, founder: &NodeId, now: Timestamp) -> Plan {
    let Some(instance) = view.instance(founder, now) else {
        return replace_founder(view, founder, now);
    };
    if instance.data != Data::Present || instance.process != Process::Standby {
        return Plan::wait(format!("{founder} is making the first copy: {}", instance.data));
    }
    let others: BTreeSet<NodeId> = view.data_nodes().filter(|n| *n != founder).cloned().collect();
    let rule = desired_rule::initial(view.spec.durability, founder, BTreeSet::new(), others);
    let appointment = Appointment {
        term: view.state.term().next().max(view.promised_max().next()),
        primary: founder.clone(),
        rules: [rule].into(),
        phase: Phase::Appointed,
    };
    let reason = format!("{founder} made the first copy");
    Plan::propose(
        ServiceCommand::Appoint {
            appointment,
            cause: Cause::Founded,
            reason: reason.clone(),
            system: instance.system,
            at_unix_ms: view.unix_ms,
        },
        reason,
    )
}
