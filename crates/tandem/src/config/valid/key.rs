//! Decides whether what an owner calls the key of a request can be one.
//! In: the written value. Out: `Source`.
//! Not here: what the key is for (`http.rs`).
//! Tested by: `config/tests/keys.rs`.

use super::checker::{Checker, Limits};
use super::http::{cookie, unreadable};
use crate::config::problem::{Code, Say};
use crate::config::raw::{self, Key};
use crate::config::value::Unreadable;
use tandem_core::clustering::load_balanced::key::Source;
use toml::Spanned;

const SEGMENT: Limits = Limits {
    range: 1..=32,
    default: 1,
    example: None,
    because: "segments count from 1: in /shops/17/cart the second one is 17",
};

/// None if nothing was written, or nothing that can be used.
pub(super) fn check(path: &str, written: &Key, check: &mut Checker<'_, '_>) -> Option<Source> {
    match written {
        Key::Unwritten => None,
        Key::Word(word) => check.word(
            path,
            word,
            (&["source"], |word| (word == "source").then_some(Source::Address)),
        ),
        Key::Table(parts) => table(path, parts, check),
    }
}

fn table(path: &str, parts: &raw::Parts, check: &mut Checker<'_, '_>) -> Option<Source> {
    let raw::Parts { header, cookie: named, path_segment } = parts;
    let key = |name: &str| format!("{path}.{name}");
    let found = check.read(&key("header"), header.as_ref(), field).map(Source::Header);
    let found = found.or(check.read(&key("cookie"), named.as_ref(), cookie).map(Source::Cookie));
    let place = check.number(&key("path_segment"), path_segment.as_ref(), &SEGMENT);
    let place = path_segment.is_some().then(|| u32::try_from(place).unwrap_or(1));
    let spans = [
        header.as_ref().map(Spanned::span),
        named.as_ref().map(Spanned::span),
        path_segment.as_ref().map(Spanned::span),
    ];
    let mut spans = spans.into_iter().flatten();
    let example =
        "{ header = \"X-Shop\" }, { cookie = \"sid\" }, { path_segment = 1 } or \"source\"";
    match (spans.next(), spans.next()) {
        (Some(_), None) => found.or(place.map(Source::PathSegment)),
        (Some(_), Some(second)) => {
            let what = format!("{path} names more than one key");
            let because = "a request belongs to one place, by one of its parts";
            let instead = format!("write one of them: {example}");
            check.problems.error(Code::Contradiction, &second, Say::new(what, because, instead));
            None
        }
        (None, _) => {
            let what = format!("{path} names no key");
            let because = "it says which part of a request its key is";
            let place = check.place_of(path);
            let say = Say::new(what, because, format!("write {example}"));
            check.problems.error(Code::MissingKey, &place, say);
            None
        }
    }
}

/// The name of a field of a head.
fn field(text: &str) -> Result<String, Unreadable> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(is_token) {
        return Ok(text.to_owned());
    }
    let because = "it is the name of a field in the head of a request, at most 64 characters";
    Err(unreadable(because, "write it like \"X-Shop\""))
}
