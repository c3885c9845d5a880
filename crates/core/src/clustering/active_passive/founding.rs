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
use crate::replication::primary_replica::desired_rule;
use crate::time::Timestamp;
use alloc::collections::BTreeSet;
use alloc::format;

pub(super) fn plan(view: &ControllerView<'_>, now: Timestamp) -> Plan {
    match &view.state.founder {
        Some(founder) => appoint_founder(view, founder, now),
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
            return Plan::wait(format!(
                "{node} holds data of term {}, but nothing is agreed: the agreed state was lost; \
                 restore it or empty the data directories",
                instance.data_term
            ));
        }
        match (&instance.data, holder) {
            (Data::Empty, _) => {}
            (Data::Quarantined { reason }, _) => {
                return Plan::wait(format!("the data of {node} is quarantined: {reason}"));
            }
            (_, None) => holder = Some(node),
            (_, Some(other)) => {
                return Plan::wait(format!("both {other} and {node} hold data: empty one of them"));
            }
        }
    }
    let by_priority = |node: &&NodeId| {
        (view.nodes.get(*node).map_or(0, |spec| spec.priority), core::cmp::Reverse((*node).clone()))
    };
    match holder.or_else(|| view.data_nodes().max_by_key(by_priority)) {
        Some(node) => Plan::propose(
            ServiceCommand::ChooseFounder { node: node.clone() },
            format!("{node} makes the first copy"),
        ),
        None => Plan::wait("no node holds data"),
    }
}

fn appoint_founder(view: &ControllerView<'_>, founder: &NodeId, now: Timestamp) -> Plan {
    let Some(instance) = view.instance(founder, now) else {
        return Plan::wait(format!("{founder} is making the first copy, and does not answer"));
    };
    if instance.data != Data::Present || instance.process != Process::Standby {
        return Plan::wait(format!("{founder} is making the first copy: {:?}", instance.data));
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
