//! Decides what a change does to services that are commands.
//! In: both configurations. Out: what forbids it, and what waits for a restart.
//! Keeps: INV-12, a lease does not change while a copy may run on another one (H4).
//! Tested by: `config/tests/command.rs`.

use super::Change;
use crate::config::problem::Say;
use crate::config::show::listen;
use crate::config::valid::{Command, KeyDoor};
use crate::config::value::print_duration;
use tandem_core::clustering::load_balanced::key::Source;
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

/// What a command and its door are cannot change while it runs.
pub(super) fn kept(change: &mut Change<'_>) {
    let door = |it: &Command| {
        let keyed = it.partitions.as_ref().and_then(|it| Some(&it.door.as_ref()?.door));
        let door = it.copies.as_ref().and_then(|it| it.door.as_ref()).or(keyed);
        door.map(|door| if door.http.is_some() { "http" } else { "tcp" })
    };
    for (id, old, new) in both(change) {
        let (before, after) = (old.pairing.clustering(), new.pairing.clustering());
        if before != after {
            let what = format!("services.{id}: clustering would change from {before} to {after}");
            let because = "its copies were started by the rules of the old pattern";
            let instead = "take the service out, apply, wait until it has ended, then put it back";
            change.refuse(&format!("services.{id}.clustering"), Say::new(what, because, instead));
        }
        let count = |it: &Command| it.partitions.as_ref().map(|it| it.count);
        if count(old) != count(new) {
            let words = |count: Option<u32>| count.map_or("none".to_owned(), |it| it.to_string());
            let (before, after) = (words(count(old)), words(count(new)));
            let what = format!("services.{id}: partitions would change from {before} to {after}");
            let because = "copies go by the numbers of the partitions that they own";
            let instead = "take the service out, apply, wait until it has ended, then put it back";
            change.refuse(&format!("services.{id}.partitions"), Say::new(what, because, instead));
        }
        if let (Some(before), Some(after)) = (door(old), door(new))
            && before != after
        {
            let what = format!("services.{id}: door would change from {before} to {after}");
            let because = "connections that are open speak to the door as it was";
            let instead = "make a new service beside it, move the clients, then remove this one";
            change.refuse(&format!("services.{id}.door"), Say::new(what, because, instead));
        }
    }
}

/// What a key is, by whatever that goes, does not change while somebody works for it.
pub(super) fn keys(change: &mut Change<'_>) {
    for (id, old, new) in both(change) {
        let door = |it: &Command| it.partitions.as_ref().and_then(|it| it.door.clone());
        let (Some(old), Some(new)) = (door(old), door(new)) else { continue };
        // Whose word is taken for a client's address, and for what only a proxy may say.
        let by_word = matches!(new.key, Source::Address | Source::Header(_));
        let trusted = |it: &KeyDoor| it.door.http.as_ref().map(|http| http.trusted.clone());
        let differ = [
            ("partition_key", old.key != new.key),
            ("trusted", by_word && trusted(&old) != trusted(&new)),
            ("accept_proxy", by_word && old.door.accept_proxy != new.door.accept_proxy),
            (
                "accept_proxy_from",
                by_word && old.door.accept_proxy_from != new.door.accept_proxy_from,
            ),
        ];
        for (key, _) in differ.into_iter().filter(|(_, differs)| *differs) {
            let what = format!("services.{id}: {key} would change");
            let because = "nodes adopt a file one after the other: two owners would get what \
                           belongs to one key";
            let instead = "take the service out, apply, wait until it has ended, then put it back";
            change.refuse(&format!("services.{id}.{key}"), Say::new(what, because, instead));
        }
    }
}

/// Nodes adopt a file one after the other, so that one would look for a copy at the new port while
/// it still listens at the old one, or the other way round.
pub(super) fn ports(change: &mut Change<'_>) {
    for (id, old, new) in both(change) {
        let (Some(before), Some(after)) = (old.port, new.port) else { continue };
        if new.copies.is_none() || before == after {
            continue;
        }
        let what = format!("services.{id}: its copies would move from port {before} to {after}");
        let because = "doors find a copy by the port of the configuration, and copies are started \
                       anew one after the other";
        let instead = format!("write port = {before}, or make a new service and move the clients");
        change.refuse(&format!("services.{id}.port"), Say::new(what, because, instead));
    }
}

/// What is said of a copy whose port has changed.
pub fn port_waits(service: &ServiceId) -> String {
    format!("service {service} has the new port once the daemons were restarted")
}

/// What changes once the daemons were restarted: the doors of all nodes find a copy at the port
/// with which its service began there.
pub(super) fn restarts(change: &mut Change<'_>) {
    // Where copies run side by side, it does not change.
    let moved = both(change).into_iter().filter(|(_, old, new)| {
        let (before, after) = (old.port, new.port);
        new.copies.is_none() && before != after
    });
    let moved: Vec<ServiceId> = moved.map(|(id, ..)| id.clone()).collect();
    for id in moved {
        let what = port_waits(&id);
        let because = "the doors of all nodes find the copy by the port with which it began there";
        let instead = "restart the daemons one after the other, the one that runs it last; or take \
                       the service out, apply, wait until it has ended, then put it back";
        change.restart(&format!("services.{id}"), Say::new(what, because, instead));
    }
}

/// Doors that close or move.
pub(super) fn doors(change: &mut Change<'_>) {
    for (id, old, new) in both(change) {
        let (Some(before), after) = (old.listen, new.listen) else { continue };
        if after == Some(before) {
            continue;
        }
        let was = listen(before);
        let (what, because) = match after {
            Some(after) => (
                format!("the front door of {id} moves on every node"),
                format!(
                    "listen changes from {was} to {}: new ones must be made there",
                    listen(after)
                ),
            ),
            None => (
                format!("the front door of {id} closes on every node"),
                format!("the new file has no listen, which was {was}: nobody is let in any more"),
            ),
        };
        let say = Say::new(what, because, "tell the clients first");
        change.weaker(&format!("services.{id}.listen"), say);
    }
}

/// What is started anew at once.
pub(super) fn anew(change: &mut Change<'_>) {
    let recipe = |it: &Command| {
        let it = it.clone();
        (it.command, it.run_as, it.cwd, it.env, it.limits)
    };
    for (id, _, new) in both(change).into_iter().filter(|(_, old, new)| recipe(old) != recipe(new))
    {
        let say = match new.copies {
            None => Say::new(
                format!("the copy of service {id} is started anew"),
                "what it is run with has changed: it is asked to end and comes back where it runs, \
                 once",
                "apply it when a restart of the copy does no harm",
            ),
            Some(_) => Say::new(
                format!("copies of service {id} are started anew, one at a time"),
                "what they are run with has changed; each one ends once nothing is left there",
                "tandem status shows how far it is",
            ),
        };
        change.restart(&format!("services.{id}"), say);
    }
}

/// What ends.
pub(super) fn ends(change: &mut Change<'_>) {
    let (old, new) = (change.old, change.new);
    for id in old.commands.keys().filter(|id| !new.commands.contains_key(*id)) {
        let what = format!("service {id} ends");
        let because = "the new file does not have it: its copy ends, within stop_max";
        let instead = "if that is not meant, put it back";
        change.weaker("services", Say::new(what, because, instead));
    }
}
