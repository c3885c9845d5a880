//! Decides whether a command can be run as written.
//! In: the written service. Out: `Command`; none if its pairing is refused or it lacks what it
//! needs.
//! Handles: H4, the margin grows with the lease; H50, every hook has a limit.
//! Not here: ports that collide (`wiring.rs`), how it is run (`service/command`).
//! Tested by: `config/tests/command.rs`.

mod copies;
mod drain;
mod partitions;
mod words;

pub use copies::Copies;
use copies::Front;
pub(super) use drain::bound as bound_drains;
pub use partitions::{KeyDoor, Partitions};

use super::checker::{Checker, Limits, Shape, Span};
use super::service::{self, HOLD, INSTANCE_PORT, SESSIONS};
use super::{Listen, Node, postgres};
use crate::config::problem::{Code, Say};
use crate::config::raw::{self, Switch};
use crate::config::value::{self, Unreadable};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tandem_core::pairing::Pairing;
use tandem_core::spec::Timing;
use toml::Spanned;
use words::{Filled, WORD_BYTES_MAX, words};

/// One service that is a command.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// The two words and the kind.
    pub pairing: Pairing,
    /// How long things may take.
    pub timing: Timing,
    /// Program and arguments; `{port}`, `{bind}` and `{node}` are filled in where it
    /// runs.
    pub command: Vec<String>,
    /// The front door.
    pub listen: Option<Listen>,
    /// Where it listens itself, on its node's `bind`.
    pub port: Option<u16>,
    /// The system user that it runs as; none: the daemon's.
    pub run_as: Option<String>,
    /// Its working folder; none: a folder of its own in the node's.
    pub cwd: Option<PathBuf>,
    /// Its environment, besides what Tandem tells it.
    pub env: BTreeMap<String, String>,
    /// Resource limits by their keys.
    pub limits: BTreeMap<&'static str, u64>,
    /// What asks it to end; empty: SIGTERM does.
    pub stop: Vec<String>,
    /// How long it may take to end before it is killed.
    pub stop_max: Duration,
    /// How it is asked; none: it is healthy while it runs.
    pub health: Option<CommandHealth>,
    /// Run before each start; empty: nothing.
    pub on_start: Vec<String>,
    /// Run after each end; empty: nothing.
    pub on_stop: Vec<String>,
    /// How long a hook may take before it is killed.
    pub hook_max: Duration,
    /// How long its log grows.
    pub log_bytes_max: u64,
    /// How long a client is held while it moves.
    pub hold_max: Duration,
    /// How many connections the front door has at once, per node.
    pub sessions_max: usize,
    /// Where one copy runs: for what it still serves to end before it is stopped by a plan.
    pub drain_max: Duration,
    /// There if copies of it run side by side.
    pub copies: Option<Copies>,
    /// There if its work is divided among them.
    pub partitions: Option<Partitions>,
}

impl Command {
    /// Where it listens on a node, if it does.
    pub fn instance_address(&self, node: &Node) -> Option<SocketAddr> {
        self.port.map(|port| SocketAddr::new(node.bind, port))
    }
}

/// How a command is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandHealth {
    /// What is asked.
    pub probe: Probe,
    /// Between two checks.
    pub interval: Duration,
    /// For one check.
    pub timeout: Duration,
    /// So many failures in a row: it is started anew.
    pub fall: u32,
    /// So many successes in a row: it is healthy.
    pub rise: u32,
    /// How long after its start failures do not count.
    pub grace: Duration,
}

/// One way to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A GET of this path at its port, answered with 200 to 399.
    Http(String),
    /// A connection to its port.
    Tcp,
    /// A program that ends with 0.
    Exec(Vec<String>),
}

const STOP: Span = Span {
    range: Duration::from_millis(100)..=Duration::from_secs(240),
    default: Duration::from_secs(10),
    because: "a move waits for it, and for the hook after it",
};
const HOOK: Span = Span { because: "a start or a move waits for it", ..STOP };
/// The longest lease of a command.
pub const LEASE_MAX: Duration = Duration::from_secs(30);
const LEASE: Span = Span {
    range: Duration::from_millis(500)..=LEASE_MAX,
    default: Duration::from_millis(900),
    because: "it is renewed ten times a second, and a dead node is waited for so long",
};
const INTERVAL: Span = Span {
    range: Duration::from_millis(100)..=Duration::from_secs(3600),
    default: Duration::from_secs(2),
    because: "its node asks it so often",
};
const TIMEOUT: Span = Span {
    range: Duration::from_millis(10)..=Duration::from_secs(60),
    default: Duration::from_secs(1),
    because: "a check that waits longer tells nothing in time",
};
const GRACE: Span = Span {
    range: Duration::ZERO..=Duration::from_secs(3600),
    default: Duration::from_secs(10),
    because: "a command needs a moment before it answers",
};
const ROW: Limits =
    Limits { range: 1..=100, default: 3, example: None, because: "so many checks in a row count" };
const RESOURCE: Limits =
    Limits { range: 0..=i64::MAX, default: 0, example: None, because: "the kernel takes no other" };
const LOG_BYTES: u64 = 10 << 20;

pub(super) fn service(
    raw: &raw::Command,
    pairing: Option<Pairing>,
    shape: Shape,
    check: &mut Checker<'_, '_>,
) -> Option<Command> {
    let path = |key: &str| format!("services.{}.{key}", raw.name.get_ref());
    if raw.command.is_empty() {
        let because = "Tandem must know what to run";
        check.missing(&path("command"), because, "[\"/srv/app\", \"--port\", \"{port}\"]");
        words::empty(&path("command"), check);
    }
    let listen = service::listen(&path("listen"), raw.listen.as_ref(), check);
    let port = check.number(&path("port"), raw.port.as_ref(), &INSTANCE_PORT);
    let port = u16::try_from(port).ok().filter(|port| *port > 0);
    let port = port.or_else(|| listen.map(|listen| service::instance_port(listen.port)));
    let filled = Filled { has_port: port.is_some() };
    let env = words::environment(raw, filled, check);
    let mut words = |key: &str, written: &[Spanned<String>]| {
        let words = words(&path(key), written, filled, check);
        words::bound(&path(key), (&words, &env), check);
        words
    };
    let command = words("command", &raw.command);
    let stop = words("stop", &raw.stop);
    let on_start = words("on_start", &raw.on_start);
    let on_stop = words("on_stop", &raw.on_stop);
    let on_partitions = words("on_partitions", &raw.on_partitions);
    let health = health(raw, (filled, &env), check);
    let lease = check.duration(&path("lease"), raw.lease.as_ref(), &LEASE);
    let usual = Timing::of_command();
    let drift_margin = usual.drift_margin.max(lease / 10);
    let sessions = Limits { default: 10_000, ..SESSIONS };
    let sessions_max = check.number(&path("sessions_max"), raw.sessions_max.as_ref(), &sessions);
    let log_max = check.read(&path("log_max"), raw.log_max.as_ref(), log_bytes);
    let hold_max = check.duration(&path("hold_max"), raw.hold_max.as_ref(), &HOLD);
    let sessions_max = usize::try_from(sessions_max).unwrap_or(1);
    let front = Front { listen, hold_max, sessions_max };
    let partitions = partitions::check(raw, (pairing, on_partitions), front, check);
    let copies = match &partitions {
        Some(_) => None,
        None => copies::check(raw, (pairing, shape), front, check),
    };
    let drain_max = drain::alone(raw, pairing, check);
    Some(Command {
        pairing: pairing?,
        drain_max,
        copies,
        partitions,
        timing: Timing { lease, drift_margin, ..usual },
        command,
        listen,
        port,
        run_as: check.read(&path("run_as"), raw.run_as.as_ref(), user),
        cwd: check.read(&path("cwd"), raw.cwd.as_ref(), |text| cwd(text, filled)),
        env,
        limits: limits(raw, check),
        stop,
        stop_max: check.duration(&path("stop_max"), raw.stop_max.as_ref(), &STOP),
        health,
        on_start,
        on_stop,
        hook_max: check.duration(&path("hook_max"), raw.hook_max.as_ref(), &HOOK),
        log_bytes_max: log_max.unwrap_or(LOG_BYTES),
        hold_max,
        sessions_max,
    })
}

fn limits(raw: &raw::Command, check: &mut Checker<'_, '_>) -> BTreeMap<&'static str, u64> {
    let Switch::On(limits) = &raw.limits else { return BTreeMap::new() };
    let written = [
        ("nofile", &limits.nofile),
        ("core", &limits.core),
        ("nproc", &limits.nproc),
        ("memlock", &limits.memlock),
        ("address_space", &limits.address_space),
        ("fsize", &limits.fsize),
    ];
    let mut all = BTreeMap::new();
    for (key, number) in written {
        if let Some(number) = number {
            let path = format!("services.{}.limits.{key}", raw.name.get_ref());
            let value = check.number(&path, Some(number), &RESOURCE);
            all.insert(key, u64::try_from(value).unwrap_or(0));
        }
    }
    all
}

fn health(
    raw: &raw::Command,
    around: (Filled, &BTreeMap<String, String>),
    check: &mut Checker<'_, '_>,
) -> Option<CommandHealth> {
    let Switch::On(written) = &raw.health else { return None };
    let table = format!("services.{}.health", raw.name.get_ref());
    let path = |key: &str| format!("{table}.{key}");
    let probe = probe(written, &table, around, check);
    let interval = check.duration(&path("interval"), written.interval.as_ref(), &INTERVAL);
    let usual = Span { default: TIMEOUT.default.min(interval), ..TIMEOUT };
    let count = |number: i64| u32::try_from(number).unwrap_or(1);
    let rise = Limits { default: 1, ..ROW };
    Some(CommandHealth {
        interval,
        timeout: check.duration(&path("timeout"), written.timeout.as_ref(), &usual),
        fall: count(check.number(&path("fall"), written.fall.as_ref(), &ROW)),
        rise: count(check.number(&path("rise"), written.rise.as_ref(), &rise)),
        grace: check.duration(&path("grace"), written.grace.as_ref(), &GRACE),
        probe: probe?,
    })
}

fn probe(
    written: &raw::CommandHealth,
    table: &str,
    (filled, env): (Filled, &BTreeMap<String, String>),
    check: &mut Checker<'_, '_>,
) -> Option<Probe> {
    let exec = words(&format!("{table}.exec"), &written.exec, filled, check);
    words::bound(&format!("{table}.exec"), (&exec, env), check);
    let http = check.read(&format!("{table}.http"), written.http.as_ref(), |path| {
        let good = path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic());
        if good && path.len() <= WORD_BYTES_MAX {
            return Ok(path.to_owned());
        }
        Err(Unreadable {
            because: "it is no path of a request".to_owned(),
            try_: "write it like http = \"/healthz\"".to_owned(),
        })
    });
    let tcp = written.tcp.as_ref().is_some_and(|tcp| *tcp.get_ref());
    let all = [http.map(Probe::Http), tcp.then_some(Probe::Tcp)];
    let exec = (!exec.is_empty()).then_some(Probe::Exec(exec));
    let mut all: Vec<Probe> = all.into_iter().chain([exec]).flatten().collect();
    let place = check.place_of(table);
    let needs_port = all.iter().any(|probe| !matches!(probe, Probe::Exec(_)));
    let (what, because, instead) = if all.len() != 1 {
        if all.is_empty() && check.problems.errors() > 0 {
            return None;
        }
        let what = format!("{table} names {} ways to ask", all.len());
        (what, "one of http, tcp and exec says how it is asked", "write http = \"/healthz\"")
    } else if needs_port && !filled.has_port {
        let what = format!("{table} asks at a port, and there is none");
        (what, "http and tcp ask at the command's port", "write port, or ask with exec")
    } else {
        return all.pop();
    };
    check.problems.error(Code::Contradiction, &place, Say::new(what, because, instead));
    None
}

fn cwd(text: &str, filled: Filled) -> Result<PathBuf, Unreadable> {
    filled.allows(text)?;
    postgres::folder(text)
}

/// Any user: unlike PostgreSQL, some commands need root.
fn user(text: &str) -> Result<String, Unreadable> {
    if text == "root" { Ok(text.to_owned()) } else { postgres::user(text) }
}

fn log_bytes(text: &str) -> Result<u64, Unreadable> {
    let bytes = value::bytes(text)?;
    if (64 << 10..=1 << 40).contains(&bytes) {
        return Ok(bytes);
    }
    Err(Unreadable {
        because: "two files of that size are kept".to_owned(),
        try_: "write \"64kB\" to \"1TB\"".to_owned(),
    })
}
