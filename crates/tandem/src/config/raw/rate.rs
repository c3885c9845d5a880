//! Reads the rates of a balanced service, as they were written.
//! In: its table. Out: `RateLimit`.
//! Not here: what may be run (`valid/rate.rs`).

use super::key::{self, Key};
use super::section::{Reading, Section};
use super::written::{Number, Switch, Text};

#[derive(Debug)]
pub(in crate::config) struct RateLimit {
    pub per_client: Text,
    pub burst: Number,
    pub total: Text,
    pub total_burst: Number,
    pub key: Key,
}

pub(super) fn read(
    reading: &mut Reading<'_>,
    section: &mut Section<'_, '_>,
    is_http: bool,
) -> Switch<RateLimit> {
    section.switch(reading, "rate_limit").map(|table| {
        let mut inner = section.inner(table, ("rate_limit", "services.NAME.rate_limit"));
        let rate_limit = RateLimit {
            per_client: inner.text(reading, "per_client"),
            burst: inner.number(reading, "burst"),
            total: inner.text(reading, "total"),
            total_burst: inner.number(reading, "total_burst"),
            // A connection has an address and nothing else.
            key: if is_http {
                key::read(reading, &mut inner, ("key", "services.NAME.rate_limit.key"))
            } else {
                Key::Unwritten
            },
        };
        inner.finish(reading);
        rate_limit
    })
}
