//! Checks INV-8: no plan rests on an observation that is older than its limit: with everything
//! stale blanked out, apart from what cannot go back, the plan of the controller is the same, and
//! so is that of an instance.

use std::collections::BTreeMap;
use tandem_core::cluster::state::ServiceState;
use tandem_core::clustering::active_passive::instance::{self, Next};
use tandem_core::clustering::active_passive::{ControllerView, InstanceView, Plan, controller};
use tandem_core::facts::{InstanceFacts, NodeFacts};
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::time::{Observed, Timestamp};

/// What is broken.
pub const RULE: &str = "INV-8: a stale observation changes the plan";

/// Whether the plan is the same without what is stale.
pub fn plans_alike(view: &ControllerView<'_>, plan: &Plan, now: Timestamp) -> bool {
    let age_max = view.spec.timing.suspicion;
    if view.facts.values().all(|facts| facts.fresh(now, age_max).is_some()) {
        return true;
    }
    let blanked: BTreeMap<NodeId, Observed<NodeFacts>> = view
        .facts
        .iter()
        .map(|(node, facts)| {
            if facts.fresh(now, age_max).is_some() {
                return (node.clone(), facts.clone());
            }
            let at = now.minus(facts.age(now));
            (node.clone(), Observed::new(blank(facts.last_known()), at))
        })
        .collect();
    controller::plan(&ControllerView { facts: &blanked, ..view.clone() }, now) == *plan
}

/// Whether an instance plans the same without what is stale.
pub fn acts_alike(
    view: &InstanceView<'_>,
    facts: &BTreeMap<NodeId, Observed<NodeFacts>>,
    of: (&ServiceId, &ServiceState),
    (next, now): (&Next, Timestamp),
) -> bool {
    let age_max = view.timing.suspicion;
    let Some(appointment) = &view.state.appointment else { return true };
    let Some(told) = facts.get(&appointment.primary) else { return true };
    if told.fresh(now, age_max).is_some() {
        return true;
    }
    let at = now.minus(told.age(now));
    let blanked = BTreeMap::from([(
        appointment.primary.clone(),
        Observed::new(blank(told.last_known()), at),
    )]);
    let times = (&view.timing, now);
    let primary = InstanceView::heard_primary(view.me, of, &blanked, times);
    instance::plan(&InstanceView { primary, ..view.clone() }) == *next
}

/// Promises are for good, and `Async` measures its bounds by what was told.
fn blank(facts: &NodeFacts) -> NodeFacts {
    let keep = |instance: &InstanceFacts| InstanceFacts {
        promised: instance.promised,
        flushed: instance.flushed,
        revision: instance.revision,
        system: instance.system,
        data_term: instance.data_term,
        ends: instance.ends.clone(),
        ..InstanceFacts::default()
    };
    NodeFacts {
        ended: Default::default(),
        node: facts.node.clone(),
        told: facts.told,
        config_version: facts.config_version,
        links: BTreeMap::new(),
        instances: facts.instances.iter().map(|(name, i)| (name.clone(), keep(i))).collect(),
        draining: false,
        doors: BTreeMap::new(),
    }
}
