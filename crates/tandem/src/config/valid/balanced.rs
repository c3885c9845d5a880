//! Decides whether a service whose endpoints something else runs can be balanced as written.
//! In: the written service. Out: `Balanced`; none if its pairing is refused.
//! Not here: ports that collide (`wiring.rs`), who gets work (`tandem_core`).
//! Tested by: `config/tests/balanced.rs`.

mod led;
mod proxy_version;
mod role;
mod upstreams;

pub(super) use led::exists as led_exists;
pub use proxy_version::ProxyVersion;
pub use role::{Role, RoleCheck};

use super::checker::{Checker, Limits, Span};
use super::http::{Certificate, Question};
use super::rate::{self, RateLimit};
use super::service::{self, HOLD, SESSIONS};
use super::upstream_tls::{self, UpstreamTls};
use super::{Http, Listen, http};
use crate::config::problem::{Code, Say};
use crate::config::raw::{self, Switch};
use crate::config::value::{self, HostPort};
use std::time::Duration;
use tandem_core::clustering::load_balanced::balance::Policy;
use tandem_core::clustering::load_balanced::ejection;
use tandem_core::ids::ServiceId;
use tandem_core::pairing::Pairing;

/// One service whose connections or requests are spread over endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct Balanced {
    /// The two words and the kind.
    pub pairing: Pairing,
    /// The front door.
    pub listen: Listen,
    /// Where work may go; empty only where it leads to the copies of a command.
    pub upstreams: Vec<Upstream>,
    /// The command whose copies are its endpoints, if they are.
    pub leads_to: Option<ServiceId>,
    /// How an endpoint is chosen.
    pub policy: Policy,
    /// When an endpoint is out.
    pub limits: ejection::Limits,
    /// Whether what fails is left out for a while.
    pub ejects: bool,
    /// How endpoints are asked; none: they are not.
    pub health: Option<Health>,
    /// How long a client is held while no endpoint takes its connection.
    pub hold_max: Duration,
    /// How many connections the front door has at once, per node.
    pub sessions_max: usize,
    /// How many clients, or requests, may wait for a place at an endpoint, per node.
    pub held_max: usize,
    /// How many connections a node has at one endpoint at once; none: any number.
    pub connections_max: Option<u32>,
    /// How long an endpoint may take to accept a connection.
    pub connect_timeout: Duration,
    /// A connection on which nothing moves for so long is closed.
    pub idle_timeout: Duration,
    /// For what an endpoint has that gets no new work; none: what is behind the door sees to it.
    pub drain_max: Option<Duration>,
    /// Clients say who they are by the PROXY protocol, and must.
    pub accept_proxy: bool,
    /// Those who do and must, as written; none: everybody.
    pub accept_proxy_from: Option<Vec<String>>,
    /// Endpoints are told who the client is by the PROXY protocol.
    pub send_proxy: Option<ProxyVersion>,
    /// What a check asks for; none: it only connects.
    pub question: Option<Question>,
    /// What PostgreSQL servers are asked; none: they may be anything.
    pub role: Option<RoleCheck>,
    /// What clients of a door for connections are shown; none: what they say is passed on.
    pub certificates: Vec<Certificate>,
    /// With tcp: connections to endpoints are encrypted, and not only checks.
    pub encrypts: bool,
    /// How endpoints are spoken to; none: in clear.
    pub upstream_tls: Option<UpstreamTls>,
    /// How much clients may ask for; none: as much as they like.
    pub rate_limit: Option<RateLimit>,
    /// There if it balances requests and not connections.
    pub http: Option<Http>,
}

/// One endpoint, or the name of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Where.
    pub address: HostPort,
    /// How much work it gets, relative to the others; at least 1.
    pub weight: u32,
    /// Where it stands; none: near to every node.
    pub zone: Option<String>,
    /// It gets no new work.
    pub drain: bool,
}

/// How endpoints are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Between two checks of an endpoint.
    pub interval: Duration,
    /// For one check; less than the interval.
    pub timeout: Duration,
}

const PORT_EXAMPLE: u16 = 6379;
const CONNECTIONS_DEFAULT: i64 = 10_000;

const ROW: Limits =
    Limits { range: 1..=100, default: 3, example: None, because: "so many checks in a row count" };
const FAILURES: Limits = Limits {
    range: 0..=1000,
    default: 5,
    example: None,
    because: "so many failures in a row eject an endpoint, and 0 is never",
};
const TIMES: Limits = Limits {
    range: 2..=1000,
    default: 0,
    example: None,
    because: "endpoints that are well differ by less; leave it out to eject nobody for being slow",
};
const PERCENT: Limits =
    Limits { range: 0..=100, default: 50, example: None, because: "it is a percentage" };
const INTERVAL: Span = Span {
    range: Duration::from_millis(100)..=Duration::from_secs(3600),
    default: Duration::from_secs(2),
    because: "every node asks every endpoint so often",
};
const CHECK_TIMEOUT: Span = Span {
    range: Duration::from_millis(10)..=Duration::from_secs(60),
    default: Duration::from_secs(1),
    because: "a check that waits longer tells nothing in time",
};
const CONNECT: Span =
    Span { because: "a client waits for it before another endpoint is tried", ..CHECK_TIMEOUT };
const IDLE: Span = Span {
    range: Duration::from_secs(1)..=Duration::from_secs(30 * 86_400),
    default: Duration::from_secs(3600),
    because: "less cuts clients that only think, more keeps what is forgotten",
};
const HELD: Limits = Limits {
    range: 1..=1_000_000,
    default: CONNECTIONS_DEFAULT,
    example: None,
    because: "whoever waits costs memory, and more than this wait in vain",
};
const AT_ENDPOINT: Limits = Limits {
    range: 1..=1_000_000,
    default: 0,
    example: None,
    because: "0 connections are none; leave it out for any number",
};
const SLOW_START: Span = Span {
    range: Duration::ZERO..=Duration::from_secs(3600),
    default: Duration::from_secs(10),
    because: "an endpoint that comes back gets its whole share after it",
};
const DRAIN: Span = Span {
    range: Duration::ZERO..=Duration::from_secs(86_400),
    default: Duration::from_secs(300),
    because: "whoever waits for an endpoint to be empty waits no longer than this",
};
const WINDOW: Span = Span {
    range: Duration::from_secs(1)..=Duration::from_secs(3600),
    default: Duration::from_secs(10),
    because: "results count together for so long",
};
const EJECTION: Span = Span { because: "an endpoint is left out for so long", ..WINDOW };
const EJECTION_MAX: Span = Span {
    range: Duration::from_secs(1)..=Duration::from_secs(86_400),
    default: Duration::from_secs(300),
    because: "no ejection lasts longer, and it is at least `time`",
};

pub(super) fn service(
    raw: &raw::Balanced,
    pairing: Option<Pairing>,
    check: &mut Checker<'_, '_>,
) -> Option<Balanced> {
    let path = |key: &str| format!("services.{}.{key}", raw.name.get_ref());
    if raw.listen.is_none() {
        let because = "there is no usual port for this protocol that could be guessed";
        check.missing(&path("listen"), because, &PORT_EXAMPLE.to_string());
    }
    let leads_to = led::check(raw, check);
    let is_led = raw.upstreams.iter().any(|it| it.service.is_some());
    let upstreams = if is_led { Vec::new() } else { upstreams::check(raw, check) };
    let (health, limits) = health(raw, check);
    // Their own nodes ask copies, and doors follow what those say.
    let health = health.filter(|_| !is_led);
    let listen = service::listen(&path("listen"), raw.listen.as_ref(), check);
    let door = door(raw, Basis { pairing, listen, usual: Policy::PeakEwma }, check)?;
    let limits = ejection::Limits { fall: limits.fall, rise: limits.rise, ..door.limits };
    let drain_max = check.duration(&path("drain_max"), raw.drain_max.as_ref(), &DRAIN);
    Some(Balanced { upstreams, leads_to, health, limits, drain_max: Some(drain_max), ..door })
}

/// What a door is of, whatever is behind it.
pub(super) struct Basis {
    pub pairing: Option<Pairing>,
    pub listen: Option<Listen>,
    /// How it chooses where nothing is written.
    pub usual: Policy,
}

pub(super) fn door(
    raw: &raw::Balanced,
    Basis { pairing, listen, usual }: Basis,
    check: &mut Checker<'_, '_>,
) -> Option<Balanced> {
    let path = |key: &str| format!("services.{}.{key}", raw.name.get_ref());
    let policy = raw
        .balance
        .as_ref()
        .and_then(|word| check.word(&path("balance"), word, (Policy::WORDS, Policy::from_word)));
    let send_proxy = raw.send_proxy.as_ref().and_then(|word| {
        check.word(&path("send_proxy"), word, (ProxyVersion::WORDS, ProxyVersion::from_word))
    });
    let mut limits = ejection::Limits::default();
    let ejects = ejection(raw, &mut limits, check);
    limits.slow_start = check.duration(&path("slow_start"), raw.slow_start.as_ref(), &SLOW_START);
    let sessions = Limits { default: CONNECTIONS_DEFAULT, ..SESSIONS };
    let sessions_max = check.number(&path("sessions_max"), raw.sessions_max.as_ref(), &sessions);
    let held = Limits { default: sessions_max, ..HELD };
    let held_max = check.number(&path("held_max"), raw.held_max.as_ref(), &held);
    let connections_max =
        check.number(&path("connections_max"), raw.connections_max.as_ref(), &AT_ENDPOINT);
    let mut duration = |key: &str, written: &raw::Text, span: &Span| {
        check.duration(&path(key), written.as_ref(), span)
    };
    let hold_max = duration("hold_max", &raw.hold_max, &HOLD);
    let connect_timeout = duration("connect_timeout", &raw.connect_timeout, &CONNECT);
    let idle = if raw.http.is_some() { &http::IDLE } else { &IDLE };
    let idle_timeout = duration("idle_timeout", &raw.idle_timeout, idle);
    let http = raw.http.as_ref().map(|http| http::check(http, raw, usual, check));
    let question = http::question(raw, check);
    let upstream_tls = upstream_tls::service(raw, check);
    let certificates = match raw.http {
        Some(_) => Vec::new(),
        None => http::certificates(raw, check),
    };
    Some(Balanced {
        pairing: pairing?,
        listen: listen?,
        upstreams: Vec::new(),
        leads_to: None,
        policy: policy.unwrap_or(usual),
        limits,
        ejects,
        health: None,
        hold_max,
        sessions_max: usize::try_from(sessions_max).unwrap_or(1),
        held_max: usize::try_from(held_max).unwrap_or(1),
        connections_max: Some(number(connections_max)).filter(|max| *max > 0),
        connect_timeout,
        idle_timeout,
        drain_max: None,
        accept_proxy: is_set(&raw.accept_proxy),
        accept_proxy_from: accept_proxy_from(raw, check),
        send_proxy,
        question,
        role: role::check(raw, check),
        certificates,
        encrypts: raw.http.is_none() && matches!(raw.upstream_tls, Switch::On(_)),
        upstream_tls,
        rate_limit: rate::check(raw, check),
        http,
    })
}

/// Whose headers are taken; none: everybody's.
fn accept_proxy_from(raw: &raw::Balanced, check: &mut Checker<'_, '_>) -> Option<Vec<String>> {
    let of = |key: &str| format!("services.{}.{key}", raw.name.get_ref());
    let path = of("accept_proxy_from");
    if !check.is_written(&path) {
        return None;
    }
    let is_unreadable = raw.accept_proxy.is_none() && check.is_written(&of("accept_proxy"));
    let mut refuse = |what: String, because: &str, instead: &str| {
        let place = check.place_of(&path);
        check.problems.error(Code::Contradiction, &place, Say::new(what, because, instead));
    };
    if !is_set(&raw.accept_proxy) && !is_unreadable {
        let because = "without accept_proxy nobody is asked who its client is";
        let instead = "write accept_proxy = true, or remove it";
        refuse(format!("{path} has no effect"), because, instead);
    } else if raw.accept_proxy_from.is_empty() && is_set(&raw.accept_proxy) {
        let because = "then nobody's header would count, and accept_proxy would do nothing";
        refuse(format!("{path} names nobody"), because, "name the proxies, or remove accept_proxy");
    }
    let written = raw.accept_proxy_from.iter();
    Some(written.filter_map(|it| check.read(&path, Some(it), http::network)).collect())
}

pub(super) fn is_set(flag: &raw::Flag) -> bool {
    flag.as_ref().is_some_and(|flag| *flag.get_ref())
}

pub(super) fn number(written: i64) -> u32 {
    u32::try_from(written).unwrap_or(0)
}

fn health(raw: &raw::Balanced, check: &mut Checker<'_, '_>) -> (Option<Health>, ejection::Limits) {
    let path = |key: &str| format!("services.{}.health.{key}", raw.name.get_ref());
    let mut limits = ejection::Limits::default();
    let nothing = raw::Health::default();
    let written = match &raw.health {
        Switch::Off => return (None, limits),
        Switch::Unwritten => &nothing,
        Switch::On(written) => written,
    };
    let interval = check.duration(&path("interval"), written.interval.as_ref(), &INTERVAL);
    let usual = Span { default: CHECK_TIMEOUT.default.min(interval / 2), ..CHECK_TIMEOUT };
    let timeout = check.duration(&path("timeout"), written.timeout.as_ref(), &usual);
    if timeout >= interval {
        let print = value::print_duration;
        let what = format!("{} is not less than interval", path("timeout"));
        let because = format!(
            "a check may take {}, and the next one begins after {}",
            print(timeout),
            print(interval)
        );
        let instead = format!("write timeout = \"{}\"", print(interval / 2));
        let place = check.place_of(&path("timeout"));
        check.problems.error(Code::Timing, &place, Say::new(what, because, instead));
    }
    limits.fall = number(check.number(&path("fall"), written.fall.as_ref(), &ROW));
    let rise = Limits { default: 2, ..ROW };
    limits.rise = number(check.number(&path("rise"), written.rise.as_ref(), &rise));
    (Some(Health { interval, timeout }), limits)
}

/// Whether anybody is ejected.
fn ejection(
    raw: &raw::Balanced,
    limits: &mut ejection::Limits,
    check: &mut Checker<'_, '_>,
) -> bool {
    let path = |key: &str| format!("services.{}.ejection.{key}", raw.name.get_ref());
    let nothing = raw::Ejection::default();
    let written = match &raw.ejection {
        Switch::Off => {
            (limits.failures, limits.success_percent_min) = (0, 0);
            return false;
        }
        Switch::Unwritten => &nothing,
        Switch::On(written) => written,
    };
    let mut count = |key: &str, written: &raw::Number, bounds: &Limits| {
        number(check.number(&path(key), written.as_ref(), bounds))
    };
    limits.failures = count("failures", &written.failures, &FAILURES);
    limits.success_percent_min = count("success_min", &written.success_min, &PERCENT);
    limits.latency_times = count("latency", &written.latency, &TIMES);
    limits.ejected_percent_max = count("share_max", &written.share_max, &PERCENT);
    limits.window = check.duration(&path("window"), written.window.as_ref(), &WINDOW);
    limits.ejection = check.duration(&path("time"), written.time.as_ref(), &EJECTION);
    let longest = Span {
        range: limits.ejection..=*EJECTION_MAX.range.end(),
        default: EJECTION_MAX.default.max(limits.ejection),
        ..EJECTION_MAX
    };
    limits.ejection_max = check.duration(&path("time_max"), written.time_max.as_ref(), &longest);
    true
}
