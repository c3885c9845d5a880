//! Decides whether the copies of a command can be what is behind a door, as written.
//! In: the list of endpoints; all services. Out: the command's name.
//! Not here: endpoints that are addresses (`balanced.rs`), who follows copies (`node/services`).
//! Tested by: `config/tests/balanced/led.rs`.

use super::super::checker::Checker;
use super::super::service::Services;
use super::{Balanced, is_set};
use crate::config::problem::{Code, Say, nearest};
use crate::config::raw::{self, Switch};
use crate::config::value;
use tandem_core::ids::ServiceId;

/// The command that is named, if one is.
pub(super) fn check(raw: &raw::Balanced, check: &mut Checker<'_, '_>) -> Option<ServiceId> {
    let (at, led) = raw.upstreams.iter().enumerate().find(|(_, it)| it.service.is_some())?;
    let table = format!("services.{}", raw.name.get_ref());
    let key = format!("{table}.upstreams.{}", at + 1);
    let of = check.read(&format!("{key}.service"), led.service.as_ref(), |text| {
        value::name(text).map(|()| ServiceId::new(text))
    });
    if raw.upstreams.len() > 1 {
        let say = Say::new(
            format!("{table}.upstreams names a service and something else"),
            "behind such a door are the copies of one command, wherever they are, and nothing else",
            "write only the table with `service`, or only addresses",
        );
        check.problems.error(Code::Contradiction, &led.place, say);
    }
    let written = [
        ("address", led.address.is_some()),
        ("weight", led.weight.is_some()),
        ("zone", led.zone.is_some()),
        ("drain", is_set(&led.drain)),
    ];
    for (name, _) in written.into_iter().filter(|(_, is_written)| *is_written) {
        let because = "where copies are, and how much work each gets, follows from the nodes that \
                       run them";
        let instead = "remove it; capacity and zone of a node count, and tandem drain NODE empties \
                       one";
        let what = format!("{key}.{name} does not go with service");
        let place = check.place_of(&format!("{key}.{name}"));
        check.problems.error(Code::Contradiction, &place, Say::new(what, because, instead));
    }
    if let Switch::On(_) = &raw.health {
        let what = format!("{table}.health does not go with the copies of a command");
        let because = "their own nodes ask them, and doors follow what those say";
        let instead = "remove it, and write `health` for the command";
        let place = check.place_of(&format!("{table}.health"));
        check.problems.error(Code::Contradiction, &place, Say::new(what, because, instead));
    }
    of
}

/// Whether there is that command, with something to connect to. A command is behind no other
/// service, so that no two of them lead to each other.
pub(in crate::config::valid) fn exists(
    services: &Services,
    (id, service): (&ServiceId, &Balanced),
    check: &mut Checker<'_, '_>,
) {
    let Some(of) = &service.leads_to else { return };
    let table = format!("services.{of}");
    let (because, instead) = match services.commands.get(of) {
        Some(it) if it.partitions.is_some() => (
            "its work is divided: each request belongs to the copy that owns its partition, which \
             only its own door knows",
            format!("write listen and partition_key for {of}, and let clients connect there"),
        ),
        Some(it) if it.port.is_none() => {
            ("it listens nowhere", format!("write port for {of}, or listen"))
        }
        Some(_) => return,
        None if of == id => (
            "that is the service itself: each connection would make another one",
            "write the name of a command, or addresses".to_owned(),
        ),
        None if services.postgres.contains_key(of) => (
            "it is PostgreSQL, whose own doors follow its primary and hold clients as its \
             protocol needs",
            format!("let clients connect to listen and read_listen of {of}"),
        ),
        None if services.balanced.contains_key(of) => (
            "its endpoints are not run by Tandem: a door to a door would only cost time",
            "write its endpoints here".to_owned(),
        ),
        // What is wrong with it was told.
        None if check.is_written(&format!("{table}.kind")) => return,
        None => {
            let known: Vec<&str> = services.commands.keys().map(ServiceId::as_str).collect();
            let meant = nearest(of.as_str(), &known).map(|it| format!("did you mean \"{it}\"?"));
            let instead = || "write the name of a service of kind = \"command\"".to_owned();
            ("there is no such service", meant.unwrap_or_else(instead))
        }
    };
    let key = format!("services.{id}.upstreams.1.service");
    let what = format!("{key} = \"{of}\" cannot be led to");
    let place = check.place_of(&key);
    check.problems.error(Code::Contradiction, &place, Say::new(what, because, instead));
}
