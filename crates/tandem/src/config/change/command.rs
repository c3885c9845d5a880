//! Decides what a change does to services that are commands.
//! In: both configurations. Out: what forbids it, and what waits for a restart.
//! Keeps: INV-12, a lease does not change while a copy may run on another one (H4).
//! Tested by: `config/tests/command.rs`.

use super::Change;
use crate::config::problem::Say;
use crate::config::valid::Command;
use crate::config::value::print_duration;
use tandem_core::ids::ServiceId;

fn both<'a>(change: &Change<'a>) -> Vec<(&'a ServiceId, &'a Command, &'a Command)> {
    let (old, new) = (change.old, change.new);
    old.commands.iter().filter_map(|(id, it)| Some((id, it, new.commands.get(id)?))).collect()
}

/// Nodes adopt a file one after the other: one that counts on the shorter of two leases, be it the
/// old or the new one, would have another copy started while the first still runs on the longer.
pub(super) fn lease(change: &mut Change<'_>) {
    for (id, old, new) in both(change) {
        if new.timing.lease == old.timing.lease {
            continue;
        }
        let (before, after) = (print_duration(old.timing.lease), print_duration(new.timing.lease));
        let what = format!("services.{id}: lease would change from {before} to {after}");
        let because = "the lease alone keeps two copies apart, and nodes adopt the new one at \
                       different moments";
        let instead = "take the service out, apply, wait until it has ended and its lease has \
                       passed, then put it back with the new one";
        change.refuse(&format!("services.{id}.lease"), Say::new(what, because, instead));
    }
}

/// What begins or changes once the daemons were restarted: a door is opened, and found, by what its
/// daemon began with.
pub(super) fn restarts(change: &mut Change<'_>) {
    let new = change.new;
    for id in new.commands.keys().filter(|id| !change.old.commands.contains_key(*id)) {
        super::begins(change, id);
    }
    let door = |it: &Command| (it.listen, it.port, it.hold_max, it.sessions_max);
    for (id, _, _) in both(change).into_iter().filter(|(_, old, new)| door(old) != door(new)) {
        let what = format!("service {id} has the new door once the daemons were restarted");
        let because = "listen, port, hold_max and sessions_max are what a daemon begins with, and \
                       the doors of all nodes find the copy by them";
        let instead = "restart the daemons one after the other, the one that runs it last";
        change.restart(&format!("services.{id}"), Say::new(what, because, instead));
    }
}

/// What is started anew at once.
pub(super) fn anew(change: &mut Change<'_>) {
    let recipe = |it: &Command| {
        let it = it.clone();
        (it.command, it.run_as, it.cwd, it.env, it.limits)
    };
    for (id, _, _) in both(change).into_iter().filter(|(_, old, new)| recipe(old) != recipe(new)) {
        let what = format!("the copy of service {id} is started anew");
        let because = "what it is run with has changed: it is asked to end and comes back where it \
                       runs, once";
        let instead = "apply it when a restart of the copy does no harm";
        change.restart(&format!("services.{id}"), Say::new(what, because, instead));
    }
}

/// What ends.
pub(super) fn ends(change: &mut Change<'_>) {
    let (old, new) = (change.old, change.new);
    for id in old.commands.keys().filter(|id| !new.commands.contains_key(*id)) {
        let what = format!("service {id} ends");
        let because = "the new file does not have it: its copy is stopped within its lease";
        let instead = "if that is not meant, put it back";
        change.weaker("services", Say::new(what, because, instead));
    }
}
