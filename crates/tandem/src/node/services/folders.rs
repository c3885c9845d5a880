//! Keeps what belongs to one service on this node in one hand: a service may come back under
//! another pattern while the driver of before still ends its copy.
//! In: names of services. Out: a `Folder`, until it is released.
//! Not here: what is in them (`service/command`).
//! Tested by: below, `tests/copies`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tandem_core::ids::ServiceId;

/// Which of them somebody has. Clones share it.
#[derive(Clone, Debug, Default)]
pub(in crate::node) struct Folders(Arc<Mutex<BTreeSet<ServiceId>>>);

/// What belongs to a service, and to nobody else meanwhile.
#[derive(Debug)]
#[must_use]
pub(super) struct Folder {
    all: Folders,
    service: ServiceId,
}

impl Folders {
    /// None while somebody else has it.
    pub(super) fn take(&self, service: &ServiceId) -> Option<Folder> {
        let is_free = self.all().insert(service.clone());
        is_free.then(|| Folder { all: self.clone(), service: service.clone() })
    }

    /// Whether nobody has it.
    pub(in crate::node) fn is_free(&self, service: &ServiceId) -> bool {
        !self.all().contains(service)
    }

    fn all(&self) -> MutexGuard<'_, BTreeSet<ServiceId>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Folder {
    /// Lets others have it: nothing runs of the service here. One that is dropped stays taken,
    /// since nobody knows that then.
    pub(super) fn release(self) {
        self.all.all().remove(&self.service);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hand_at_a_time() {
        let (folders, web) = (Folders::default(), "web".into());
        let held = folders.take(&web).unwrap();
        assert!(folders.take(&web).is_none() && folders.take(&"jobs".into()).is_some());
        held.release();
        let held = folders.take(&web);
        drop(held);
        assert!(!folders.is_free(&web) && folders.take(&web).is_none(), "nobody knows what runs");
    }
}
