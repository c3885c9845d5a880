//! Decides what a change does to services whose endpoints something else runs.
//! In: both configurations. Out: what forbids it, and what it ends or moves.
//! Everything of such a service changes while it runs, and no connection ends: nothing waits.
//! Tested by: `config/tests/balanced.rs`.

use super::Change;
use crate::config::problem::Say;
use crate::config::show::listen;
use crate::config::value::print_duration;

/// Another kind of service under the same name.
pub(super) fn kinds(change: &mut Change<'_>) {
    let (old, new) = (change.old, change.new);
    let names = old.services.keys().chain(old.commands.keys()).chain(old.balanced.keys());
    for id in names.filter(|id| !(old.services.contains_key(*id) && new.services.contains_key(*id)))
    {
        let (Some(before), Some(after)) = (old.kind_of(id), new.kind_of(id)) else { continue };
        if before == after {
            continue;
        }
        let what = format!("services.{id}: kind would change from {before} to {after}");
        let because = "clients, endpoints and what was set up are those of the old kind";
        let instead = "make a new service beside it, move the clients, then remove this one";
        change.refuse(&format!("services.{id}.kind"), Say::new(what, because, instead));
    }
}

/// Doors that close or move.
pub(super) fn doors(change: &mut Change<'_>) {
    let (old, new) = (change.old, change.new);
    for (id, before) in &old.balanced {
        let Some(after) = new.balanced.get(id) else {
            let what = format!("service {id} ends");
            let max = print_duration(before.drain_max.unwrap_or_default());
            let because = format!(
                "the new file does not have it: its doors close at once, and connections get {max} \
                 (its drain_max) to end by themselves"
            );
            let instead = "if that is not meant, put it back";
            change.weaker("services", Say::new(what, because, instead));
            continue;
        };
        if before.listen != after.listen {
            let what = format!("the front door of {id} moves on every node");
            let because = format!(
                "listen changes from {} to {}: connections stay, new ones must be made there",
                listen(before.listen),
                listen(after.listen)
            );
            let instead =
                "tell the clients first: each node opens the new door, then closes the old one";
            let key = format!("services.{id}.listen");
            change.weaker(&key, Say::new(what, because, instead));
        }
    }
}
