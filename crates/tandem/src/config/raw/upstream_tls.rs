//! Reads how endpoints are spoken to where that is encrypted, as it was written.
//! In: a table. Out: `UpstreamTls`.
//! Not here: what may be run (`valid/upstream_tls.rs`).

use super::section::{Reading, Section};
use super::written::{Switch, Text};

#[derive(Debug)]
pub(in crate::config) struct UpstreamTls {
    pub ca: Text,
    pub server_name: Text,
    pub certificate: Text,
    pub key: Text,
}

/// `key` of the section, whose pattern is `pattern`.
pub(super) fn read(
    reading: &mut Reading<'_>,
    section: &mut Section<'_, '_>,
    (key, pattern): (&'static str, &'static str),
) -> Switch<UpstreamTls> {
    let table = section.switch(reading, key);
    table.map(|table| {
        let mut section = section.inner(table, (key, pattern));
        let tls = UpstreamTls {
            ca: section.text(reading, "ca"),
            server_name: section.text(reading, "server_name"),
            certificate: section.text(reading, "certificate"),
            key: section.text(reading, "key"),
        };
        section.finish(reading);
        tls
    })
}
