//! Reads what a request belongs to, as it was written: a word, or a table with one of its keys.
//! In: the value. Out: `Key`.
//! Not here: whether it can be used (`valid/key.rs`).

use super::section::{Reading, Section};
use super::written::{Number, Text};
use toml::Spanned;
use toml::de::DeValue;

#[derive(Debug)]
pub(in crate::config) enum Key {
    /// Nothing was written, or nothing that can be read.
    Unwritten,
    Word(Spanned<String>),
    Table(Parts),
}

/// One of these.
#[derive(Debug, Default)]
pub(in crate::config) struct Parts {
    pub header: Text,
    pub cookie: Text,
    pub path_segment: Number,
}

pub(super) fn read(
    reading: &mut Reading<'_>,
    section: &mut Section<'_, '_>,
    (key, pattern): (&'static str, &'static str),
) -> Key {
    let Some(value) = section.value(reading, key) else { return Key::Unwritten };
    match value.get_ref() {
        DeValue::String(word) => Key::Word(Spanned::new(value.span(), word.to_string())),
        DeValue::Table(table) => {
            let mut inner = section.inner(table, (key, pattern));
            let parts = Parts {
                header: inner.text(reading, "header"),
                cookie: inner.text(reading, "cookie"),
                path_segment: inner.number(reading, "path_segment"),
            };
            inner.finish(reading);
            Key::Table(parts)
        }
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_) => {
            section.wrong_type(reading, value, [key, "a string or a table", "\"source\""]);
            Key::Unwritten
        }
    }
}
