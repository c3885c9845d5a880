//! Decides whether the voters may change now, as far as a lease rests on them.
//! In: `ControllerView`. Out: nothing, or why not.
//! Keeps: INV-1, INV-12 a lease rests on a majority of the voters that its holder knows.
//! Majorities of before and after one change meet; of two they need not, so the next one waits
//! until the holder knows the last.
//! Not here: majorities of Raft (the shell), what commits wait for (`desired_rule.rs`).
//! Tested by: `active_passive/singleton/tests/changes.rs`; the simulator's owner asks it as well.

use super::active_passive::verdict::{self, Verdict};
use super::active_passive::{ControllerView, singleton};
use crate::pairing::Kind;
use crate::reason::Reason;
use crate::spec::Durability;
use crate::time::Timestamp;
use alloc::format;

/// Why the voters may not change yet; none: they may.
pub fn keeps_voters(view: &ControllerView<'_>, now: Timestamp) -> Option<Reason> {
    let appointment = view.state.appointment.as_ref()?;
    if !matches!(view.spec.durability, Durability::Async { .. }) {
        return None;
    }
    let (holder, revision) = (&appointment.primary, view.state.revision);
    let known = view.instance(holder, now).map(|own| own.revision);
    if known.is_some_and(|known| known >= revision) {
        return None;
    }
    // Where a majority does not hear it, it has no lease by the time that the new voters vote.
    let verdict = match view.spec.pairing.kind() {
        Kind::Command => singleton::judge(view, appointment, now),
        Kind::Postgres | Kind::Http | Kind::Tcp => verdict::judge(view, appointment, now),
    };
    if matches!(verdict, Verdict::Dead(_, _)) {
        return None;
    }
    let service = view.service;
    let why = match known {
        Some(_) => format!("{holder}, where {service} runs, has not heard of the last change yet"),
        None => format!(
            "{holder}, where {service} runs, does not answer here, and others may hear it: its \
             lease may rest on the voters of before"
        ),
    };
    Some(Reason::new(why).number("revision", revision.0))
}
