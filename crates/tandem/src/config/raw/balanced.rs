//! Reads the keys of a service whose endpoints something else runs, as they were written.
//! In: its table. Out: `Balanced`.
//! Not here: what may be run (`valid/balanced.rs`).

use super::http::{self, Certificate, Http, Question};
use super::rate::{self, RateLimit};
use super::role::{self, RoleCheck};
use super::section::{Reading, Section};
use super::upstream_tls::{self, UpstreamTls};
use super::written::{Flag, Item, Number, Scalar, Switch, Text};
use std::ops::Range;
use tandem_core::pairing::Kind;
use toml::Spanned;

#[derive(Debug)]
pub(in crate::config) struct Balanced {
    pub name: Spanned<String>,
    pub listen: Option<Spanned<Scalar>>,
    pub upstreams: Vec<Upstream>,
    pub balance: Text,
    pub health: Switch<Health>,
    pub ejection: Switch<Ejection>,
    pub slow_start: Text,
    /// A door of copies has none: what it is there is the copies'.
    pub drain_max: Text,
    pub rate_limit: Switch<RateLimit>,
    pub hold_max: Text,
    pub sessions_max: Number,
    pub held_max: Number,
    pub connections_max: Number,
    pub connect_timeout: Text,
    pub idle_timeout: Text,
    pub accept_proxy: Flag,
    pub accept_proxy_from: Vec<Spanned<String>>,
    pub send_proxy: Text,
    pub upstream_tls: Switch<UpstreamTls>,
    pub certificates: Vec<Certificate>,
    /// There if it balances requests and not connections.
    pub http: Option<Http>,
}

/// One of the list, which counts from 1.
#[derive(Debug)]
pub(in crate::config) struct Upstream {
    pub place: Range<usize>,
    pub address: Text,
    pub service: Text,
    pub weight: Number,
    pub zone: Text,
    pub drain: Flag,
}

#[derive(Debug, Default)]
pub(in crate::config) struct Health {
    pub interval: Text,
    pub timeout: Text,
    pub fall: Number,
    pub rise: Number,
    pub question: Question,
    pub tls: Switch<UpstreamTls>,
    pub postgres: Switch<RoleCheck>,
}

#[derive(Debug, Default)]
pub(in crate::config) struct Ejection {
    pub failures: Number,
    pub success_min: Number,
    pub latency: Number,
    pub window: Text,
    pub time: Text,
    pub time_max: Text,
    pub share_max: Number,
    pub errors: Flag,
}

const UPSTREAM_TLS: (&str, &str) = ("upstream_tls", "services.NAME.upstream_tls");
const HEALTH_TLS: (&str, &str) = ("tls", "services.NAME.health.tls");

/// What a door shares with whatever is behind it.
pub(super) struct Shared {
    pub name: Spanned<String>,
    pub listen: Option<Spanned<Scalar>>,
    pub hold_max: Text,
    pub sessions_max: Number,
}

pub(super) fn read(
    reading: &mut Reading<'_>,
    name: &Spanned<String>,
    mut section: Section<'_, '_>,
    kind: Kind,
) -> Balanced {
    let is_http = kind == Kind::Http;
    let shared = Shared {
        name: name.clone(),
        listen: section.listen(reading, "listen"),
        hold_max: section.text(reading, "hold_max"),
        sessions_max: section.number(reading, "sessions_max"),
    };
    let upstreams = upstreams(reading, &mut section);
    let health = section.switch(reading, "health").map(|table| {
        health(reading, section.inner(table, ("health", "services.NAME.health")), is_http)
    });
    let drain_max = section.text(reading, "drain_max");
    let door = door(reading, shared, &mut section, kind);
    section.finish(reading);
    Balanced { upstreams, health, drain_max, ..door }
}

/// The keys of a door, whatever is behind it; of kind tcp or http by what it balances.
pub(super) fn door(
    reading: &mut Reading<'_>,
    shared: Shared,
    section: &mut Section<'_, '_>,
    kind: Kind,
) -> Balanced {
    let is_http = kind == Kind::Http;
    Balanced {
        name: shared.name,
        listen: shared.listen,
        upstreams: Vec::new(),
        balance: section.text(reading, "balance"),
        health: Switch::Off,
        ejection: section.switch(reading, "ejection").map(|table| {
            ejection(reading, section.inner(table, ("ejection", "services.NAME.ejection")), is_http)
        }),
        slow_start: section.text(reading, "slow_start"),
        drain_max: None,
        rate_limit: rate::read(reading, section, is_http),
        hold_max: shared.hold_max,
        sessions_max: shared.sessions_max,
        held_max: section.number(reading, "held_max"),
        // A connection carries the requests of many: they are bounded, by `in_flight_max`.
        connections_max: if is_http { None } else { section.number(reading, "connections_max") },
        connect_timeout: section.text(reading, "connect_timeout"),
        idle_timeout: section.text(reading, "idle_timeout"),
        accept_proxy: section.flag(reading, "accept_proxy"),
        accept_proxy_from: section.texts(reading, "accept_proxy_from"),
        send_proxy: section.text(reading, "send_proxy"),
        upstream_tls: upstream_tls::read(reading, section, UPSTREAM_TLS),
        certificates: http::certificates(reading, section),
        http: is_http.then(|| http::read(reading, section)),
    }
}

fn upstreams(reading: &mut Reading<'_>, section: &mut Section<'_, '_>) -> Vec<Upstream> {
    let mut upstreams = Vec::new();
    for (at, Item { place, value }) in section.items(reading, "upstreams").into_iter().enumerate() {
        let key = format!("upstreams.{}", at + 1);
        let path = section.path(&key);
        reading.origins.insert(path.clone(), place.clone());
        match value {
            Ok(address) => {
                reading.origins.insert(format!("{path}.address"), place.clone());
                let address = Some(Spanned::new(place.clone(), address));
                let (service, weight, zone, drain) = (None, None, None, None);
                upstreams.push(Upstream { place, address, service, weight, zone, drain });
            }
            Err(table) => {
                let inner = section.inner(table, (&key, "services.NAME.upstreams.INDEX"));
                upstreams.push(upstream(reading, place, inner));
            }
        }
    }
    upstreams
}

fn upstream(
    reading: &mut Reading<'_>,
    place: Range<usize>,
    mut section: Section<'_, '_>,
) -> Upstream {
    let upstream = Upstream {
        place,
        address: section.text(reading, "address"),
        service: section.text(reading, "service"),
        weight: section.number(reading, "weight"),
        zone: section.text(reading, "zone"),
        drain: section.flag(reading, "drain"),
    };
    section.finish(reading);
    upstream
}

fn health(reading: &mut Reading<'_>, mut section: Section<'_, '_>, is_http: bool) -> Health {
    let health = Health {
        interval: section.text(reading, "interval"),
        timeout: section.text(reading, "timeout"),
        fall: section.number(reading, "fall"),
        rise: section.number(reading, "rise"),
        question: http::question(reading, &mut section),
        // As its requests are.
        tls: match is_http {
            true => Switch::Unwritten,
            false => upstream_tls::read(reading, &mut section, HEALTH_TLS),
        },
        postgres: match is_http {
            true => Switch::Unwritten,
            false => role::read(reading, &mut section),
        },
    };
    section.finish(reading);
    health
}

fn ejection(reading: &mut Reading<'_>, mut section: Section<'_, '_>, is_http: bool) -> Ejection {
    let ejection = Ejection {
        failures: section.number(reading, "failures"),
        success_min: section.number(reading, "success_min"),
        latency: section.number(reading, "latency"),
        window: section.text(reading, "window"),
        time: section.text(reading, "time"),
        time_max: section.text(reading, "time_max"),
        share_max: section.number(reading, "share_max"),
        errors: if is_http { section.flag(reading, "errors") } else { None },
    };
    section.finish(reading);
    ejection
}
