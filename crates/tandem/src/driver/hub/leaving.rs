//! Keeps by which configuration this node supports leases of services that are taken out.
//! In: what each service's task goes by. Out: whether its support counts.
//! Keeps: INV-12, INV-13 one task learns that a name is back before another one: none that goes by
//! an older configuration supports what was there before, once any of them may promise.
//! Not here: what is supported (`tandem_core::cluster::memory`).
//! Tested by: below.

use super::Hub;
use std::collections::BTreeMap;
use tandem_core::facts::InstanceFacts;
use tandem_core::ids::{ConfigVersion, ServiceId};

/// What the tasks of this node go by.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    newest: ConfigVersion,
    /// Of services that are taken out.
    of: BTreeMap<ServiceId, ConfigVersion>,
}

impl Leaving {
    pub(super) fn forget(&mut self, service: &ServiceId) {
        self.of.remove(service);
    }

    /// What is told of a service: without the support that does not count.
    pub(super) fn told(&self, service: &ServiceId, facts: InstanceFacts) -> InstanceFacts {
        let is_of_the_past = self.of.get(service).is_some_and(|version| *version < self.newest);
        let outlives = if is_of_the_past { None } else { facts.outlives };
        InstanceFacts { outlives, ..facts }
    }
}

impl Hub {
    /// The task of a service goes by that configuration, and has published what follows from it.
    pub fn goes_by(&self, service: &ServiceId, version: ConfigVersion, is_taken_out: bool) {
        let leaving = &mut self.known().leaving;
        leaving.newest = leaving.newest.max(version);
        if is_taken_out {
            leaving.of.insert(service.clone(), version);
        } else if !leaving.of.is_empty() {
            leaving.of.remove(service);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_core::ids::Term;
    use tandem_core::time::Timestamp;

    #[test]
    fn inv13_what_is_taken_out_is_supported_by_the_newest_that_any_task_goes_by() {
        let (hub, jobs, seat) = (Hub::new("a".into()), "jobs".into(), "jobs@a".into());
        let told = || hub.own().instances[&jobs].outlives;
        let facts = InstanceFacts { outlives: Some(Term(3)), ..InstanceFacts::default() };
        hub.publish(&jobs, &facts, Timestamp(1));
        hub.goes_by(&jobs, ConfigVersion(1), false);
        hub.goes_by(&seat, ConfigVersion(2), false);
        assert_eq!(told(), Some(Term(3)), "it is there, by what is agreed");
        hub.goes_by(&jobs, ConfigVersion(2), true);
        assert_eq!(told(), Some(Term(3)), "it is taken out");
        hub.goes_by(&seat, ConfigVersion(3), false);
        assert_eq!(told(), None, "something of its name may be back");
        hub.goes_by(&jobs, ConfigVersion(3), true);
        assert_eq!(told(), Some(Term(3)), "it is not");
    }
    #[test]
    fn an_answer_supports_what_is_taken_out_once_the_peer_has_said_that_it_knows() {
        let (hub, peer, jobs) = (Hub::new("a".into()), Hub::new("b".into()), "jobs".into());
        let facts = |is_leaving| InstanceFacts {
            outlives: Some(Term(3)),
            is_leaving,
            ..InstanceFacts::default()
        };
        let told = || hub.own_to(peer.me()).instances[&jobs].outlives;
        hub.publish(&jobs, &facts(true), Timestamp(1));
        assert_eq!(told(), None, "nothing was heard of it");
        for (knows, supported) in [(false, None), (true, Some(Term(3)))] {
            peer.publish(&jobs, &facts(knows), Timestamp(1));
            hub.heard(peer.own());
            assert_eq!(told(), supported);
        }
    }
}
