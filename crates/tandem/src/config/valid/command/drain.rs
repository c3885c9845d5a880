//! Decides how long what a copy that runs alone still serves has to end before it is stopped by a
//! plan.
//! In: the written service, the doors of other services that lead to it. Out: a duration.
//! Not here: the same of copies side by side (`copies.rs`).
//! Tested by: `config/tests/command.rs`, `config/tests/balanced/led.rs`.

use super::Command;
use crate::config::problem::{Code, Say};
use crate::config::raw;
use crate::config::valid::checker::{Checker, Span};
use crate::config::valid::service::Services;
use std::time::Duration;
use tandem_core::ids::ServiceId;
use tandem_core::pairing::{Clustering, Pairing};

/// New clients are held until the last session of before has ended.
const ALONE: Span = Span {
    range: Duration::ZERO..=Duration::from_secs(60),
    default: Duration::from_secs(2),
    because: "clients that come meanwhile are held for so long",
};

/// As it is written, or usual; none has one where copies run side by side.
pub(super) fn alone(
    raw: &raw::Command,
    pairing: Option<Pairing>,
    check: &mut Checker<'_, '_>,
) -> Duration {
    if pairing.is_some_and(|it| it.clustering() != Clustering::ActivePassive) {
        return Duration::ZERO;
    }
    let path = format!("services.{}.drain_max", raw.name.get_ref());
    check.duration(&path, raw.drain_max.as_ref(), &ALONE)
}

/// Bounds it by how long every door that leads there holds whoever comes, once all are read.
pub(in crate::config::valid) fn bound(
    file: &raw::File,
    services: &mut Services,
    check: &mut Checker<'_, '_>,
) {
    for it in &file.services {
        let raw::Keys::Command(raw) = &it.keys else { continue };
        let id = ServiceId::new(it.name.get_ref().as_str());
        let Some(command) = services.commands.get(&id) else { continue };
        if command.pairing.clustering() != Clustering::ActivePassive {
            continue;
        }
        let held = held(services, (&id, command));
        if raw.drain_max.is_some() {
            written(raw, (command.drain_max, held, is_led(file, &id)), check);
        } else if let (Some((_, hold_max)), Some(command)) = (held, services.commands.get_mut(&id))
        {
            command.drain_max = command.drain_max.min(hold_max);
        }
    }
}

/// Which door holds its clients for the shortest time, and for how long.
fn held(services: &Services, (id, command): (&ServiceId, &Command)) -> Option<(String, Duration)> {
    let own = command.listen.map(|_| ("hold_max".to_owned(), command.hold_max));
    let leads = services.balanced.iter().filter(|(_, it)| it.leads_to.as_ref() == Some(id));
    let others = leads.map(|(door, it)| (format!("hold_max of {door}"), it.hold_max));
    own.into_iter().chain(others).min_by_key(|(_, hold_max)| *hold_max)
}

/// Whether another service names it, also one that has a mistake of its own.
fn is_led(file: &raw::File, id: &ServiceId) -> bool {
    file.services.iter().any(|it| match &it.keys {
        raw::Keys::Balanced(door) => {
            let mut named = door.upstreams.iter().filter_map(|it| it.service.as_ref());
            named.any(|of| of.get_ref() == id.as_str())
        }
        raw::Keys::Postgres(_) | raw::Keys::Command(_) => false,
    })
}

fn written(
    raw: &raw::Command,
    (drain_max, held, is_led): (Duration, Option<(String, Duration)>, bool),
    check: &mut Checker<'_, '_>,
) {
    let path = format!("services.{}.drain_max", raw.name.get_ref());
    let say = match held {
        None if !is_led => Say::new(
            format!("{path} has no effect"),
            "without `listen` there is no front door, and no other service leads to it",
            "write listen, or remove it",
        ),
        Some((held, hold_max)) if drain_max > hold_max => Say::new(
            format!("{path} is more than {held}"),
            "who comes meanwhile is held for hold_max, and would be turned away while sessions of \
             before still have time",
            "write less, or a longer hold_max",
        ),
        None | Some(_) => return,
    };
    let place = check.place_of(&path);
    check.problems.error(Code::Contradiction, &place, say);
}
