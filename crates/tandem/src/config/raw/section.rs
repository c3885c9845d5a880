//! Talks to one table of the file: hands out values by key, and names the keys nobody asked for.
//! In: a parsed TOML table. Out: values with their spans.
//! Not here: what a value means (`valid`).

use super::written::{Flag, Item, Number, Scalar, Switch, Text, scalar, type_word};
use crate::config::problem::{Code, Problems, Say, nearest};
use crate::config::reference::{Fallback, entry_of, kinds_of};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use tandem_core::pairing::Kind;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Words that give a secret away; a key with one of them gets its own advice.
const SECRET_WORDS: &[&str] = &["password", "passwd", "passphrase", "secret", "token", "private"];

const WHOLE_NUMBER: &str = "a whole number of at most 64 bits";

/// What grows while a file is read.
#[derive(Debug)]
pub(in crate::config) struct Reading<'a> {
    pub problems: Problems<'a>,
    /// Where each key that was written has its value, by its full path.
    pub origins: BTreeMap<String, Range<usize>>,
    /// Every key that was asked for, as in the reference (`nodes.NAME.zone`), and for which kind of
    /// service.
    pub accepted: BTreeSet<(Option<&'static str>, String)>,
}

/// One table, and which of its keys are known.
#[derive(Debug)]
pub(in crate::config) struct Section<'s, 'a> {
    table: &'s DeTable<'a>,
    pattern: &'static str,
    path: String,
    /// None: the same for every kind of service, or no service at all.
    kind: Option<Kind>,
    known: Vec<&'static str>,
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl<'s, 'a> Section<'s, 'a> {
    pub(super) const fn new(table: &'s DeTable<'a>, pattern: &'static str, path: String) -> Self {
        Self { table, pattern, path, kind: None, known: Vec::new() }
    }

    /// From here on, its keys are those of one kind of service.
    pub(super) fn of(self, kind: Kind) -> Self {
        Self { kind: Some(kind), ..self }
    }

    /// A table of this one, by its key here and its pattern.
    pub(super) fn inner(
        &self,
        table: &'s DeTable<'a>,
        (key, pattern): (&str, &'static str),
    ) -> Self {
        Self { kind: self.kind, ..Self::new(table, pattern, self.path(key)) }
    }

    /// The full path of a key in this table.
    pub(super) fn path(&self, key: &str) -> String {
        join(&self.path, key)
    }

    fn accept(&self, reading: &mut Reading<'_>, key: &str) {
        reading.accepted.insert((self.kind.map(Kind::word), join(self.pattern, key)));
    }

    pub(super) fn value(
        &mut self,
        reading: &mut Reading<'_>,
        key: &'static str,
    ) -> Option<&'s Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.accept(reading, key);
        let value = self.table.get(key)?;
        reading.origins.insert(self.path(key), value.span());
        Some(value)
    }

    pub(super) fn wrong_type(
        &self,
        reading: &mut Reading<'_>,
        value: &Spanned<DeValue<'_>>,
        say: [&str; 3],
    ) {
        let [key, expected, example] = say;
        let found = match value.get_ref() {
            DeValue::Integer(_) if expected == WHOLE_NUMBER => "too large",
            other => type_word(other),
        };
        let entry = entry_of(&self.path(key), self.kind);
        let takes = entry.map_or(expected, |entry| entry.takes);
        let example = match entry.map(|entry| entry.default) {
            Some(Fallback::Value(number)) if number.parse::<u64>().is_ok() => number.to_owned(),
            Some(Fallback::Value(text)) => format!("\"{text}\""),
            _ => example.to_owned(),
        };
        reading.problems.error(
            Code::WrongType,
            &value.span(),
            Say::new(
                format!("{} is {found}, not {expected}", self.path(key)),
                format!("`{key}` takes: {takes}"),
                format!("write it like {key} = {example}"),
            ),
        );
    }

    pub(super) fn text(&mut self, reading: &mut Reading<'_>, key: &'static str) -> Text {
        let value = self.value(reading, key)?;
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(reading, value, [key, "a string", "\"…\""]);
            return None;
        };
        Some(Spanned::new(value.span(), text.to_owned()))
    }

    pub(super) fn number(&mut self, reading: &mut Reading<'_>, key: &'static str) -> Number {
        let value = self.value(reading, key)?;
        if let Some(Scalar::Integer(number)) = scalar(value.get_ref()) {
            return Some(Spanned::new(value.span(), number));
        }
        self.wrong_type(reading, value, [key, WHOLE_NUMBER, "1"]);
        None
    }

    pub(super) fn flag(&mut self, reading: &mut Reading<'_>, key: &'static str) -> Flag {
        let value = self.value(reading, key)?;
        if let DeValue::Boolean(on) = value.get_ref() {
            return Some(Spanned::new(value.span(), *on));
        }
        self.wrong_type(reading, value, [key, "true or false", "true"]);
        None
    }

    /// A table, or `false`.
    pub(super) fn switch(
        &mut self,
        reading: &mut Reading<'_>,
        key: &'static str,
    ) -> Switch<&'s DeTable<'a>> {
        let Some(value) = self.value(reading, key) else { return Switch::Unwritten };
        match value.get_ref() {
            DeValue::Boolean(false) => Switch::Off,
            DeValue::Table(table) => {
                // A table is where its name stands, as in `table`.
                if let Some((name, _)) = self.table.get_key_value(key) {
                    reading.origins.insert(self.path(key), name.span());
                }
                Switch::On(table)
            }
            DeValue::Boolean(true)
            | DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => {
                self.wrong_type(reading, value, [key, "a table or false", "false"]);
                Switch::Unwritten
            }
        }
    }

    /// A list of texts and tables.
    pub(super) fn items(
        &mut self,
        reading: &mut Reading<'_>,
        key: &'static str,
    ) -> Vec<Item<'s, 'a>> {
        const SAY: &str = "an array of strings and tables";
        let Some(value) = self.value(reading, key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong_type(reading, value, [key, SAY, "[\"10.0.0.11:6379\"]"]);
            return Vec::new();
        };
        let mut items = Vec::new();
        for item in array.iter() {
            let value = match item.get_ref() {
                DeValue::String(text) => Ok(text.to_string()),
                DeValue::Table(table) => Err(table),
                DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_)
                | DeValue::Array(_) => {
                    self.wrong_type(reading, item, [key, SAY, "[\"10.0.0.11:6379\"]"]);
                    continue;
                }
            };
            items.push(Item { place: item.span(), value });
        }
        items
    }

    /// A port, or an address with a port.
    pub(super) fn listen(
        &mut self,
        reading: &mut Reading<'_>,
        key: &'static str,
    ) -> Option<Spanned<Scalar>> {
        let value = self.value(reading, key)?;
        match scalar(value.get_ref()) {
            Some(found @ (Scalar::Text(_) | Scalar::Integer(_))) => {
                Some(Spanned::new(value.span(), found))
            }
            Some(Scalar::Float(_) | Scalar::Boolean(_)) | None => {
                self.wrong_type(reading, value, [key, "a port or an \"ip:port\"", "5432"]);
                None
            }
        }
    }

    pub(super) fn texts(
        &mut self,
        reading: &mut Reading<'_>,
        key: &'static str,
    ) -> Vec<Spanned<String>> {
        let Some(value) = self.value(reading, key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong_type(reading, value, [key, "an array of strings", "[\"…\"]"]);
            return Vec::new();
        };
        let mut texts = Vec::new();
        for item in array.iter() {
            match item.get_ref().as_str() {
                Some(text) => texts.push(Spanned::new(item.span(), text.to_owned())),
                None => self.wrong_type(reading, item, [key, "an array of strings", "[\"…\"]"]),
            }
        }
        texts
    }

    /// A table of texts by names of the owner's choice.
    pub(super) fn texts_by_name(
        &mut self,
        reading: &mut Reading<'_>,
        key: &'static str,
    ) -> Vec<(Spanned<String>, Spanned<String>)> {
        let Some(value) = self.value(reading, key) else { return Vec::new() };
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type(reading, value, [key, "a table of strings", "{ MODE = \"…\" }"]);
            return Vec::new();
        };
        let mut texts = Vec::new();
        for (name, value) in table {
            let name = Spanned::new(name.span(), name.get_ref().to_string());
            reading.origins.insert(self.path(&join(key, name.get_ref())), value.span());
            match value.get_ref().as_str() {
                Some(text) => texts.push((name, Spanned::new(value.span(), text.to_owned()))),
                None => {
                    let say = [key, "a table of strings", "{ MODE = \"…\" }"];
                    self.wrong_type(reading, value, say);
                }
            }
        }
        texts
    }

    /// A table of this table.
    pub(super) fn table(
        &mut self,
        reading: &mut Reading<'_>,
        key: &'static str,
    ) -> Option<&'s DeTable<'a>> {
        self.known.push(key);
        let (name, value) = self.table.get_key_value(key)?;
        // A table is where its name stands: the span of its content may be half the file.
        reading.origins.insert(self.path(key), name.span());
        if let DeValue::Table(table) = value.get_ref() {
            return Some(table);
        }
        self.wrong_type(reading, value, [key, "a table", "{ … }"]);
        None
    }

    /// The tables of a table of named things, such as `nodes`.
    pub(super) fn named(
        &mut self,
        reading: &mut Reading<'_>,
        key: &'static str,
    ) -> Vec<(Spanned<String>, &'s DeTable<'a>)> {
        let Some(table) = self.table(reading, key) else { return Vec::new() };
        let mut named = Vec::new();
        for (name, value) in table {
            let path = join(&self.path(key), name.get_ref());
            reading.origins.insert(path.clone(), name.span());
            let DeValue::Table(inner) = value.get_ref() else {
                reading.problems.error(
                    Code::WrongType,
                    &value.span(),
                    Say::new(
                        format!("{path} is {}, not a table", type_word(value.get_ref())),
                        format!("each name under `{key}` has its own table of keys"),
                        format!("write [{path}] on a line of its own, its keys below"),
                    ),
                );
                continue;
            };
            named.push((Spanned::new(name.span(), name.get_ref().to_string()), inner));
        }
        named
    }

    /// PostgreSQL's settings: any key, one level of dots (`auto_explain.log_min_duration`).
    pub(super) fn settings(
        &mut self,
        reading: &mut Reading<'_>,
        key: &'static str,
    ) -> Vec<(Spanned<String>, Spanned<Scalar>)> {
        let Some(table) = self.table(reading, key) else { return Vec::new() };
        let mut settings = Vec::new();
        for (name, value) in table {
            let inner: Vec<_> = match value.get_ref() {
                DeValue::Table(dotted) => dotted
                    .iter()
                    .map(|(rest, value)| (join(name.get_ref(), rest.get_ref()), rest.span(), value))
                    .collect(),
                DeValue::String(_)
                | DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_)
                | DeValue::Array(_) => vec![(name.get_ref().to_string(), name.span(), value)],
            };
            for (name, span, value) in inner {
                let path = self.path(&join(key, &name.to_lowercase()));
                reading.origins.insert(path.clone(), value.span());
                if let Some(found) = scalar(value.get_ref()) {
                    settings.push((Spanned::new(span, name), Spanned::new(value.span(), found)));
                } else {
                    reading.problems.error(
                        Code::WrongType,
                        &value.span(),
                        Say::new(
                            format!("{path} is {}", type_word(value.get_ref())),
                            "a PostgreSQL setting is a string, a finite number or a boolean",
                            "write it as postgresql.conf has it, lists as one string: \"a, b\"",
                        ),
                    );
                }
            }
        }
        settings
    }

    /// Names every key that nobody asked for.
    pub(super) fn finish(self, reading: &mut Reading<'_>) {
        for (key, _) in self.table {
            let written: &str = key.get_ref();
            if self.known.contains(&written) {
                continue;
            }
            let what = format!("unknown key `{}`", self.path(written));
            let lower = written.to_lowercase();
            if SECRET_WORDS.iter().any(|word| lower.contains(word)) {
                let because = "this file is the same on every node, agreed by all of them and \
                               printed by `config show`: a secret in it is none";
                let instead = "remove it: passwords are derived from the cluster's secret, and \
                               certificates live in each node's identity folder";
                reading.problems.error(Code::Secret, &key.span(), Say::new(what, because, instead));
                continue;
            }
            if let Some(other) = self.of_another_kind(written) {
                reading.problems.error(Code::Contradiction, &key.span(), other);
                continue;
            }
            let instead = nearest(written, &self.known).map_or_else(
                || format!("remove it; known here: {}", self.known.join(", ")),
                |known| format!("did you mean `{known}`?"),
            );
            let because = "a key that is ignored would be a setting you believe in and do not have";
            reading.problems.error(Code::UnknownKey, &key.span(), Say::new(what, because, instead));
        }
    }

    /// What is said about a key that services of other kinds have.
    fn of_another_kind(&self, written: &str) -> Option<Say> {
        let own = self.kind?;
        let kinds = kinds_of(&join(self.pattern, written));
        if own == Kind::Command && kinds.contains(own.word()) {
            let what = format!("{} does not go with this door", self.path(written));
            let because = "one is of requests, the other of connections";
            return Some(Say::new(what, because, "write door = \"http\", or remove it"));
        }
        let kinds: Vec<_> = kinds.iter().map(|kind| format!("kind = \"{kind}\"")).collect();
        let first = kinds.first()?;
        let what = format!("{} does not go with kind = \"{own}\"", self.path(written));
        let because = format!("`{written}` belongs to a service of {}", kinds.join(" or "));
        let instead = nearest(written, &self.known).map_or_else(
            || format!("remove it, or write {first} if that is what the service is"),
            |near| format!("remove it, or did you mean `{near}`?"),
        );
        Some(Say::new(what, because, instead))
    }
}
