//! Keeps doors that close true until their last connection has ended: a copy that is to end
//! meanwhile waits for their word, also one of a node that was added since.
//! In: by what a guide is told where copies are. Out: the same, for as long as somebody keeps it.
//! Keeps: INV-14, a door says what it has, until its last connection ended.
//! Not here: when a door closes, and how long it may take (the modules beside this one).
//! Tested by: `tests.rs`.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use tandem_core::ids::ServiceId;
use tokio::sync::watch;

/// What doors that close are told by, each with the command that it leads to.
#[derive(Debug)]
pub(super) struct Closing<T>(Mutex<Vec<(ServiceId, Weak<T>)>>);

impl<T> Default for Closing<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Closing<T> {
    /// Whoever lets go of it ends the door's guide.
    pub(super) fn add(&self, of: &ServiceId, told: &Arc<T>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((of.clone(), Arc::downgrade(told)));
    }

    /// Those that have not ended.
    pub(super) fn each(&self, mut tell: impl FnMut(&ServiceId, &T)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(of, told)| {
            let Some(told) = told.upgrade() else { return false };
            tell(of, &told);
            true
        });
    }
}

/// Wakes a guide if there is something new for it.
pub(super) fn tell<T: PartialEq>(told: &watch::Sender<T>, new: T) {
    told.send_if_modified(|old| {
        let is_new = *old != new;
        *old = new;
        is_new
    });
}
