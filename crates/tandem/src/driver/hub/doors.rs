//! Keeps what each door of this node has at copies that are to be stopped, and tells it as one word
//! for each service.
//! In: each door's words. Out: what the node says; whoever waits for it is woken.
//! Keeps: INV-14 with several doors to one service the node obeys a withdrawal once all of them do.
//! Not here: what a door says (`driver/guides`, `driver/singleton/beside/doors.rs`).
//! Tested by: below.

use super::Hub;
use std::collections::BTreeMap;
use std::sync::Arc;
use tandem_core::facts::withdrawal::joined;
use tandem_core::facts::{DoorUse, door_differs};
use tandem_core::ids::{NodeId, ServiceId};

type Uses = BTreeMap<NodeId, DoorUse>;

/// What all of them say, by the service that they lead to.
#[derive(Debug, Default)]
pub(super) struct Doors {
    all: BTreeMap<ServiceId, BTreeMap<u64, Uses>>,
    opened: u64,
}

impl Doors {
    fn of(&self, service: &ServiceId) -> Option<Uses> {
        self.all.get(service).map(|doors| joined(doors.values()))
    }

    pub(super) fn told(&self) -> BTreeMap<ServiceId, Uses> {
        self.all.iter().map(|(service, doors)| (service.clone(), joined(doors.values()))).collect()
    }
}

/// What one door says, until it is closed. Where the node stops its last words stay.
#[derive(Debug)]
pub struct DoorWords {
    hub: Arc<Hub>,
    service: ServiceId,
    door: u64,
}

impl DoorWords {
    /// A copy that is to end waits from now on until this door says that it knows.
    pub fn open(hub: &Arc<Hub>, service: &ServiceId) -> Self {
        let door = {
            let mut known = hub.known();
            known.doors.opened += 1;
            known.doors.opened
        };
        let words = Self { hub: Arc::clone(hub), service: service.clone(), door };
        words.change(Some(Uses::new()));
        words
    }

    /// What it has at copies that are to be stopped. The others are told at once where somebody may
    /// wait for it.
    pub fn say(&self, uses: BTreeMap<NodeId, DoorUse>) {
        self.change(Some(uses));
    }

    /// There is no such door any more.
    pub fn close(self) {
        self.change(None);
    }

    fn change(&self, uses: Option<Uses>) {
        let Self { hub, service, door } = self;
        let mut known = hub.known();
        let before = known.doors.of(service);
        let doors = known.doors.all.entry(service.clone()).or_default();
        match uses {
            Some(uses) => _ = doors.insert(*door, uses),
            None => _ = doors.remove(door),
        }
        if doors.is_empty() {
            known.doors.all.remove(service);
        }
        let after = known.doors.of(service);
        drop(known);
        if door_differs(before.as_ref(), after.as_ref()) {
            hub.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_core::time::Timestamp;

    #[test]
    fn inv14_of_two_doors_to_one_service_both_are_waited_for() {
        let hub = Arc::new(Hub::new("a".into()));
        let web = ServiceId::from("web");
        let told = || hub.own().doors.get(&web).cloned();
        assert_eq!(told(), None, "no door");
        let (old, new) = (DoorWords::open(&hub, &web), DoorWords::open(&hub, &web));
        let uses =
            |in_flight| Uses::from([("b".into(), DoorUse { obeys: Timestamp(7), in_flight })]);
        let changed = hub.own_changed();
        new.say(uses(0));
        assert_eq!(told(), Some(Uses::new()), "the other one has not heard of it");
        assert!(!changed.has_changed().unwrap(), "nothing that anybody waits for");
        old.say(uses(3));
        assert_eq!(told(), Some(uses(3)));
        assert!(changed.has_changed().unwrap());
        old.close();
        assert_eq!(told(), Some(uses(0)));
        new.close();
        assert_eq!(told(), None);
    }
}
