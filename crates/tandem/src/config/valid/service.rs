//! Decides whether a service can be run as written.
//! In: the written service. Out: `Service`; none if its pairing is refused or not in this version.
//! Handles: H46, what this version cannot run is refused at the start, never guessed at.

use super::checker::{Checker, Limits, Shape, Span};
use super::{
    Balanced, Command, Listen, ReadLag, Service, balanced, cluster, command, durability, postgres,
    timing,
};
use crate::config::problem::{Code, Say};
use crate::config::raw::{self, Scalar};
use crate::config::value::{self, Unreadable};
use std::collections::BTreeMap;
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::Policy;
use tandem_core::ids::ServiceId;
use tandem_core::pairing::{Clustering, Kind, Pairing, Replication};
use toml::Spanned;

/// PostgreSQL's own port: clients need not change.
const LISTEN_PORT: u16 = 5432;

/// Far enough from the front door's ports, and it depends on this service alone: another service
/// that comes or goes never moves it.
const INSTANCE_PORT_OFFSET: u16 = 1000;

const READ_LAG_BYTES: u64 = 16 << 20;
const READ_LAG_BYTES_MAX: u64 = 1 << 40;
const READ_LAG_TIME_MAX: Duration = Duration::from_secs(86_400);

const PORT: Limits = Limits {
    range: 1..=65_535,
    default: 0,
    example: Some(LISTEN_PORT as i64),
    because: "that is what a port can be",
};
pub(super) const INSTANCE_PORT: Limits =
    Limits { example: Some((LISTEN_PORT + INSTANCE_PORT_OFFSET) as i64), ..PORT };
pub(super) const SESSIONS: Limits = Limits {
    range: 1..=100_000,
    default: 1000,
    example: None,
    because: "each session costs memory and a socket or two",
};
pub(super) const HOLD: Span = Span {
    range: Duration::ZERO..=Duration::from_secs(600),
    default: Duration::from_secs(15),
    because: "a client that waits longer has given up, and \"0s\" holds nobody",
};

/// Older names of replication patterns.
const OLDER_WORDS: &[(&str, Replication)] =
    &[("master-slave", Replication::PrimaryReplica), ("multi-master", Replication::MultiPrimary)];

/// The services of a file, by what they need of a node.
#[derive(Debug, Default)]
pub(super) struct Services {
    pub postgres: BTreeMap<ServiceId, Service>,
    pub commands: BTreeMap<ServiceId, Command>,
    pub balanced: BTreeMap<ServiceId, Balanced>,
}

pub(super) fn all(file: &raw::File, shape: Shape, check: &mut Checker<'_, '_>) -> Services {
    let mut services = Services::default();
    for raw in &file.services {
        cluster::checked_name("service", &raw.name, check);
        let id = ServiceId::new(raw.name.get_ref().as_str());
        let words = words(raw, check);
        let pairing = pairing(raw, &words, check);
        match &raw.keys {
            raw::Keys::Postgres(keys) => {
                services.postgres.extend(service(keys, pairing, shape, check).map(|it| (id, it)));
            }
            raw::Keys::Balanced(keys) => {
                let service = balanced::service(keys, pairing, check);
                services.balanced.extend(service.map(|it| (id, it)));
            }
            raw::Keys::Command(keys) => {
                let service = command::service(keys, pairing, shape, check);
                services.commands.extend(service.map(|it| (id, it)));
            }
        }
    }
    command::bound_drains(file, &mut services, check);
    services
}

fn service(
    raw: &raw::Postgres,
    pairing: Option<Pairing>,
    shape: Shape,
    check: &mut Checker<'_, '_>,
) -> Option<Service> {
    let path = |key: &str| format!("services.{}.{key}", raw.name.get_ref());
    let durability = durability::check(raw, shape, check);
    let timing = timing::check(&raw.timing, raw.name.get_ref(), check);
    let doors = doors(raw, pairing, check);
    let port = check.number(&path("port"), raw.port.as_ref(), &INSTANCE_PORT);
    let port = u16::try_from(port).ok().filter(|port| *port > 0);
    let hold_max = check.duration(&path("hold_max"), raw.hold_max.as_ref(), &HOLD);
    let sessions_max = check.number(&path("sessions_max"), raw.sessions_max.as_ref(), &SESSIONS);
    let held = Limits {
        range: 1..=sessions_max,
        default: sessions_max,
        example: None,
        because: "a held client is a session, and sessions_max bounds those",
    };
    let held_max = check.number(&path("held_max"), raw.held_max.as_ref(), &held);
    Some(Service {
        pairing: pairing?,
        durability,
        timing,
        port: port.unwrap_or_else(|| instance_port(doors.listen.port)),
        listen: doors.listen,
        read_listen: doors.read_listen,
        read_lag_max: doors.read_lag_max,
        read_policy: doors.read_policy,
        hold_max,
        held_max: usize::try_from(held_max).unwrap_or(1),
        sessions_max: usize::try_from(sessions_max).unwrap_or(1),
        settings: postgres::settings(raw, check),
        hba: postgres::hba(raw, check),
        run_as: check.read(&path("run_as"), raw.run_as.as_ref(), postgres::user),
        bin_dir: check.read(&path("bin_dir"), raw.bin_dir.as_ref(), postgres::folder),
        data_dir: check.read(&path("data_dir"), raw.data_dir.as_ref(), postgres::folder),
        ballast_bytes: check
            .read(&path("ballast"), raw.ballast.as_ref(), ballast)
            .unwrap_or(BALLAST_BYTES),
    })
}

pub(super) fn instance_port(listen: u16) -> u16 {
    listen.checked_add(INSTANCE_PORT_OFFSET).unwrap_or_else(|| listen - INSTANCE_PORT_OFFSET)
}

/// What was written of the three words, as far as it can be read.
struct Words {
    kind: Option<Kind>,
    clustering: Option<Clustering>,
    replication: Option<Replication>,
}

fn words(raw: &raw::Service, check: &mut Checker<'_, '_>) -> Words {
    let path = |key: &str| format!("services.{}.{key}", raw.name.get_ref());
    let is = |kind: &str| raw.kind.as_ref().is_some_and(|written| written.get_ref() == kind);
    let is_command = is("command");
    let is_routed = is("tcp") || is("http");
    let mut required = |key: &str, written: &raw::Text, because: &str| {
        if written.is_none() {
            let example = match key {
                "kind" => "\"postgres\"",
                "clustering" if is_routed => "\"load-balanced\"",
                "clustering" => "\"active-passive\"",
                // Without data of its own: nothing else is accepted for it.
                _ if is_command || is_routed => "\"none\"",
                _ => "\"primary-replica\"",
            };
            check.missing(&path(key), because, example);
        }
    };
    required("kind", &raw.kind, "Tandem must know what it runs");
    required(
        "clustering",
        &raw.clustering,
        "who serves is the owner's decision: there is no guess",
    );
    required("replication", &raw.replication, "who holds the data is the owner's decision");
    let read = |check: &mut Checker<'_, '_>, key: &str, written: &raw::Text| {
        let word = written.as_ref()?;
        let older = OLDER_WORDS.iter().find(|(older, _)| older == word.get_ref());
        if let (Some((older, today)), "replication") = (older, key) {
            let what = format!("\"{older}\" is an older word for \"{today}\"");
            let because = "status, logs and documentation use the newer word";
            let say = Say::new(what, because, format!("write replication = \"{today}\""));
            check.problems.warning(Code::OlderWord, &word.span(), say);
            return Some(*today);
        }
        check.word(&path(key), word, (Replication::WORDS, Replication::from_word))
    };
    Words {
        kind: raw
            .kind
            .as_ref()
            .and_then(|word| check.word(&path("kind"), word, (Kind::WORDS, Kind::from_word))),
        clustering: raw.clustering.as_ref().and_then(|word| {
            check.word(&path("clustering"), word, (Clustering::WORDS, Clustering::from_word))
        }),
        replication: read(check, "replication", &raw.replication),
    }
}

/// The pair, if it makes sense and this version runs it.
fn pairing(raw: &raw::Service, words: &Words, check: &mut Checker<'_, '_>) -> Option<Pairing> {
    let Words { kind: Some(kind), clustering: Some(clustering), replication: Some(replication) } =
        *words
    else {
        return None;
    };
    let place = check.place_of(&format!("services.{}.clustering", raw.name.get_ref()));
    let pair = format!("{kind} as {clustering} with {replication}");
    match Pairing::new(kind, clustering, replication) {
        Err(refusal) => {
            let say = Say::new(format!("{pair} is refused"), refusal.because, refusal.instead);
            check.problems.error(Code::RefusedPair, &place, say);
            None
        }
        Ok(pairing) if is_built(pairing) => Some(pairing),
        Ok(_) => {
            let say = Say::new(
                format!("{pair} is not in this version yet"),
                "the pair makes sense and is planned; this version runs postgres with \
                 primary-replica, as active-passive or load-balanced, commands, and spreads \
                 tcp connections and http requests",
                "use kind = \"postgres\" and replication = \"primary-replica\", or kind = \"tcp\" \
                 or \"http\" where something else runs the service, or wait",
            );
            check.problems.error(Code::NotYet, &place, say);
            None
        }
    }
}

fn is_built(pairing: Pairing) -> bool {
    match pairing.kind() {
        Kind::Postgres => {
            pairing.replication() == Replication::PrimaryReplica
                && pairing.clustering() != Clustering::ActiveActive
        }
        Kind::Tcp | Kind::Http | Kind::Command => true,
    }
}

/// The front doors.
struct Doors {
    listen: Listen,
    read_listen: Option<Listen>,
    read_lag_max: ReadLag,
    read_policy: Policy,
}

fn doors(raw: &raw::Postgres, pairing: Option<Pairing>, check: &mut Checker<'_, '_>) -> Doors {
    let path = |key: &str| format!("services.{}.{key}", raw.name.get_ref());
    let listen = listen(&path("listen"), raw.listen.as_ref(), check)
        .unwrap_or(Listen { ip: None, port: LISTEN_PORT });
    let written = self::listen(&path("read_listen"), raw.read_listen.as_ref(), check);
    let lag = check.read(&path("read_lag_max"), raw.read_lag_max.as_ref(), read_lag);
    let spreads = pairing.is_none_or(|p| p.clustering() == Clustering::LoadBalanced);
    if !spreads && let Some(door) = &raw.read_listen {
        let say = Say::new(
            format!("{} does not go with active-passive", path("read_listen")),
            "active-passive means that one instance serves; reads on the others are \
             load-balanced",
            "write clustering = \"load-balanced\", or remove read_listen",
        );
        check.problems.error(Code::Contradiction, &door.span(), say);
    }
    let read_policy = raw.read_balance.as_ref().and_then(|word| {
        check.word(&path("read_balance"), word, (Policy::WORDS, Policy::from_word))
    });
    for (key, written) in [("read_lag_max", &raw.read_lag_max), ("read_balance", &raw.read_balance)]
    {
        let Some(written) = written.as_ref().filter(|_| !spreads) else { continue };
        let say = Say::new(
            format!("{} has no effect", path(key)),
            "with active-passive no replica serves reads",
            "remove it, or write clustering = \"load-balanced\"",
        );
        check.problems.error(Code::Contradiction, &written.span(), say);
    }
    let next = listen.port.checked_add(1).unwrap_or_else(|| listen.port - 1);
    let read_listen = written.or(Some(Listen { port: next, ..listen })).filter(|_| spreads);
    Doors {
        listen,
        read_listen,
        read_lag_max: lag.unwrap_or(ReadLag::Bytes(READ_LAG_BYTES)),
        read_policy: read_policy.unwrap_or(Policy::LeastConnections),
    }
}

pub(super) fn listen(
    key: &str,
    written: Option<&Spanned<Scalar>>,
    check: &mut Checker<'_, '_>,
) -> Option<Listen> {
    let written = written?;
    match written.get_ref() {
        Scalar::Integer(port) => {
            let port = check.number(key, Some(&Spanned::new(written.span(), *port)), &PORT);
            u16::try_from(port).ok().filter(|port| *port > 0).map(|port| Listen { ip: None, port })
        }
        Scalar::Text(text) => {
            let text = Spanned::new(written.span(), text.clone());
            let read = |text: &str| match text.parse::<u16>() {
                Ok(port) => Err(Unreadable {
                    because: "a port alone is a number, not a string".to_owned(),
                    try_: format!("write {port} without quotes, or \"0.0.0.0:{port}\""),
                }),
                Err(_) => value::socket(text, LISTEN_PORT),
            };
            let socket = check.read(key, Some(&text), read)?;
            Some(Listen { ip: Some(socket.ip()), port: socket.port() })
        }
        Scalar::Float(_) | Scalar::Boolean(_) => None,
    }
}

/// Four segments of WAL: a checkpoint and a recovery fit, and no disk notices.
const BALLAST_BYTES: u64 = 64 << 20;
const BALLAST_BYTES_MAX: u64 = 64 << 30;

fn ballast(text: &str) -> Result<u64, Unreadable> {
    let bytes = value::bytes(text)?;
    if bytes <= BALLAST_BYTES_MAX {
        return Ok(bytes);
    }
    Err(Unreadable {
        because: "room that is never used should be a small part of the disk".to_owned(),
        try_: "write at most \"64GB\", or \"0B\" for none".to_owned(),
    })
}

/// Bytes, or time: their units differ.
fn read_lag(text: &str) -> Result<ReadLag, Unreadable> {
    let lag = if text.ends_with('B') {
        ReadLag::Bytes(value::bytes(text)?)
    } else {
        ReadLag::Time(value::duration(text).map_err(|why| Unreadable {
            because: why.because,
            try_: "write bytes (kB, MB, GB) or time (ms, s, min): \"16MB\" or \"10s\"".to_owned(),
        })?)
    };
    match lag {
        ReadLag::Bytes(bytes) if bytes <= READ_LAG_BYTES_MAX => Ok(lag),
        ReadLag::Time(time) if time <= READ_LAG_TIME_MAX => Ok(lag),
        ReadLag::Bytes(_) | ReadLag::Time(_) => Err(Unreadable {
            because: "so old a replica should not serve reads".to_owned(),
            try_: "write at most \"1TB\" or \"1d\"".to_owned(),
        }),
    }
}
