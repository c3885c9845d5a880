//! Reads the keys that only a service of kind http has, as they were written.
//! In: its tables. Out: `Http`, `Question`.
//! Not here: what may be run (`valid/http.rs`).

use super::key::{self, Key};
use super::section::{Reading, Section};
use super::written::{Flag, Item, Number, Switch, Text};
use toml::Spanned;

#[derive(Debug)]
pub(in crate::config) struct Http {
    pub head_timeout: Text,
    pub keep_alive: Text,
    pub answer_timeout: Text,
    pub total_timeout: Text,
    pub head_max: Text,
    pub fields_max: Number,
    pub body_max: Text,
    pub in_flight_max: Number,
    pub upstream_idle_max: Number,
    pub upstream_idle_timeout: Text,
    pub trusted: Vec<Spanned<String>>,
    pub sticky: Text,
    pub http2: Flag,
    pub upstream_protocol: Text,
    pub retry: Switch<Retry>,
    pub hash_key: Key,
}

/// One of the list, which counts from 1.
#[derive(Debug)]
pub(in crate::config) struct Certificate {
    pub certificate: Text,
    pub key: Text,
}

#[derive(Debug, Default)]
pub(in crate::config) struct Retry {
    pub percent: Number,
    pub per_second: Number,
}

/// What a check asks.
#[derive(Debug, Default)]
pub(in crate::config) struct Question {
    pub path: Text,
    pub host: Text,
    pub expect: Text,
}

pub(super) fn read(reading: &mut Reading<'_>, section: &mut Section<'_, '_>) -> Http {
    Http {
        head_timeout: section.text(reading, "head_timeout"),
        keep_alive: section.text(reading, "keep_alive"),
        answer_timeout: section.text(reading, "answer_timeout"),
        total_timeout: section.text(reading, "total_timeout"),
        head_max: section.text(reading, "head_max"),
        fields_max: section.number(reading, "fields_max"),
        body_max: section.text(reading, "body_max"),
        in_flight_max: section.number(reading, "in_flight_max"),
        upstream_idle_max: section.number(reading, "upstream_idle_max"),
        upstream_idle_timeout: section.text(reading, "upstream_idle_timeout"),
        trusted: section.texts(reading, "trusted"),
        sticky: section.text(reading, "sticky"),
        http2: section.flag(reading, "http2"),
        upstream_protocol: section.text(reading, "upstream_protocol"),
        retry: section
            .switch(reading, "retry")
            .map(|table| retry(reading, section.inner(table, ("retry", "services.NAME.retry")))),
        hash_key: key::read(reading, section, ("hash_key", "services.NAME.hash_key")),
    }
}

pub(super) fn certificates(
    reading: &mut Reading<'_>,
    section: &mut Section<'_, '_>,
) -> Vec<Certificate> {
    let mut certificates = Vec::new();
    let items = section.items(reading, "certificates");
    for (at, Item { place, value }) in items.into_iter().enumerate() {
        let key = format!("certificates.{}", at + 1);
        reading.origins.insert(section.path(&key), place.clone());
        certificates.push(match value {
            // A file alone: what is missing is told.
            Ok(file) => Certificate { certificate: Some(Spanned::new(place, file)), key: None },
            Err(table) => {
                let pattern = "services.NAME.certificates.INDEX";
                certificate(reading, section.inner(table, (&key, pattern)))
            }
        });
    }
    certificates
}

fn certificate(reading: &mut Reading<'_>, mut section: Section<'_, '_>) -> Certificate {
    let certificate = Certificate {
        certificate: section.text(reading, "certificate"),
        key: section.text(reading, "key"),
    };
    section.finish(reading);
    certificate
}

fn retry(reading: &mut Reading<'_>, mut section: Section<'_, '_>) -> Retry {
    let retry = Retry {
        percent: section.number(reading, "percent"),
        per_second: section.number(reading, "per_second"),
    };
    section.finish(reading);
    retry
}

pub(super) fn question(reading: &mut Reading<'_>, section: &mut Section<'_, '_>) -> Question {
    Question {
        path: section.text(reading, "path"),
        host: section.text(reading, "host"),
        expect: section.text(reading, "expect"),
    }
}
