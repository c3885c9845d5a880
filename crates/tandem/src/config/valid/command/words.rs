//! Decides whether words and variables of a command can be given to it.
//! In: what is written. Out: words, an environment.
//! Not here: who uses them (`command.rs`), how they are filled in (`service/command`).
//! Tested by: `config/tests/command.rs`.

use crate::config::problem::{Code, Say};
use crate::config::raw;
use crate::config::valid::checker::Checker;
use crate::config::value::{NAME_CHARS_MAX, Unreadable};
use std::collections::BTreeMap;
use toml::Spanned;

const WORDS_MAX: usize = 256;
pub(super) const WORD_BYTES_MAX: usize = 4096;
/// A start goes to its keeper as one line of 64 kB at most (`fence/protocol.rs`); what Tandem adds
/// needs far less than the rest.
const START_BYTES_MAX: usize = 48 << 10;
/// Longest address that `{bind}` may become.
const ADDRESS_CHARS_MAX: usize = 45;

/// What there is to fill in.
#[derive(Clone, Copy)]
pub(super) struct Filled {
    pub(super) has_port: bool,
}

impl Filled {
    pub(super) fn allows(self, text: &str) -> Result<(), Unreadable> {
        let of_port = ["{port}", "{bind}"].into_iter().find(|it| text.contains(it));
        let Some(lacking) = of_port.filter(|_| !self.has_port) else { return Ok(()) };
        Err(Unreadable {
            because: "it has no port".to_owned(),
            try_: format!("write port, or listen, or remove {lacking}"),
        })
    }
}

/// Written, and with nothing in it.
pub(super) fn empty(key: &str, check: &mut Checker<'_, '_>) {
    if check.is_written(key) {
        let place = check.place_of(key);
        let say = Say::new(
            format!("{key} names no program"),
            "the first text is the program, the others its arguments",
            "write the program and its arguments: [\"/srv/app\", \"--port\", \"{port}\"]",
        );
        check.problems.error(Code::BadValue, &place, say);
    }
}

/// Program and arguments. A shell is used only where it is named.
pub(super) fn words(
    key: &str,
    written: &[Spanned<String>],
    filled: Filled,
    check: &mut Checker<'_, '_>,
) -> Vec<String> {
    for (at, word) in written.iter().enumerate() {
        let text = word.get_ref();
        let flaw = if at >= WORDS_MAX {
            Some(("a command has at most 256 words", "put the rest in a script"))
        } else if text.len() > WORD_BYTES_MAX || text.contains('\0') {
            Some(("a word has at most 4096 bytes, and no zero byte", "put it in a file"))
        } else if at == 0 && text.trim().is_empty() {
            Some(("the first text is the program", "write the path of a program"))
        } else {
            None
        };
        let flaw = flaw.map(|(because, instead)| Unreadable {
            because: because.to_owned(),
            try_: instead.to_owned(),
        });
        if let Some(why) = flaw.or_else(|| filled.allows(text).err()) {
            check.bad(&format!("{key}.{}", at + 1), word, why);
            return Vec::new();
        }
    }
    written.iter().map(|word| word.get_ref().clone()).collect()
}

pub(super) fn environment(
    raw: &raw::Command,
    filled: Filled,
    check: &mut Checker<'_, '_>,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (name, value) in &raw.env {
        let key = format!("services.{}.env.{}", raw.name.get_ref(), name.get_ref());
        let text = name.get_ref();
        let because = if text.is_empty() || text.contains(['=', '\0']) {
            "that is no name of a variable"
        } else if text.starts_with("TANDEM_") {
            "names that begin with TANDEM_ are those by which Tandem tells it where it runs"
        } else if value.get_ref().contains('\0') {
            "a value has no zero byte"
        } else if let Err(why) = filled.allows(value.get_ref()) {
            check.bad(&key, value, why);
            continue;
        } else {
            all.insert(text.clone(), value.get_ref().clone());
            continue;
        };
        let try_ = "choose another name, such as APP_MODE".to_owned();
        check.bad(&key, value, Unreadable { because: because.to_owned(), try_ });
    }
    all
}

/// One program with the environment, as it goes to a keeper.
pub(super) fn bound(
    key: &str,
    (words, env): (&[String], &BTreeMap<String, String>),
    check: &mut Checker<'_, '_>,
) {
    let all = words.iter().chain(env.keys()).chain(env.values());
    let bytes: usize = all.map(|text| written_bytes(text)).sum();
    if words.is_empty() || bytes <= START_BYTES_MAX {
        return;
    }
    let say = Say::new(
        format!("{key} and env are {bytes} bytes together"),
        "a program, its arguments and its environment have at most 49152 bytes, and more for \
         what has to be escaped",
        "put long texts into files",
    );
    let place = check.place_of(key);
    check.problems.error(Code::BadValue, &place, say);
}

/// As JSON, with everything filled in.
fn written_bytes(text: &str) -> usize {
    let filled = text.matches("{node}").count() + text.matches("{bind}").count();
    let escaped = serde_json::to_string(text).map_or(text.len(), |json| json.len());
    // The comma.
    filled * ADDRESS_CHARS_MAX.max(NAME_CHARS_MAX) + escaped + 1
}
