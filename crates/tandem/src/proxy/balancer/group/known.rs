//! Keeps what is known of addresses beside the work that they get.
//! In: names and what they stand for, ways of a node's own. Out: the name of an address.
//! Not here: asking for names (`resolve.rs`), who gets work (`group.rs`).
//! Tested by: `tests.rs`, `tests/agreed.rs`.

use super::{Group, lock};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard};

impl Group {
    /// The name by which an address was found; none if it was written as an address.
    pub(in crate::proxy) fn host(&self, address: SocketAddr) -> Option<Arc<str>> {
        lock(&self.hosts).get(&address).cloned()
    }

    pub(in crate::proxy) fn hosts(&self, hosts: BTreeMap<SocketAddr, Arc<str>>) {
        *lock(&self.hosts) = hosts;
    }

    /// What all nodes call what each reaches by a way of its own, from the next time that endpoints
    /// are replaced.
    pub(in crate::proxy) fn agreed(&self, agreed: BTreeMap<SocketAddr, Arc<str>>) {
        *lock(&self.agreed) = agreed;
    }

    /// What all nodes call an endpoint: what they agree on, or where it is.
    pub(super) fn agreed_name(&self, address: SocketAddr) -> Arc<str> {
        let agreed = lock(&self.agreed).get(&address).cloned();
        agreed.unwrap_or_else(|| address.to_string().into())
    }

    /// Names that stand for nothing yet.
    pub(in crate::proxy) fn unresolved(&self) -> MutexGuard<'_, Vec<String>> {
        lock(&self.unresolved)
    }
}
