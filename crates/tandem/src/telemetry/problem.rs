//! Talks to whoever has to act on an error: what happened, because of what, and what to try.
//! In: an error of any module. Out: `Problem`, the one shape that text, JSON and exit status share.
//! Not here: the list of codes (`codes.rs`), printing (`cli/report.rs`), HTTP (`api/problem.rs`).
//! Tested by: below.

use crate::telemetry::codes::{self, Exit};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::str::FromStr;

/// The number of an error, stable for ever; written `TDM0104`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(pub u16);

/// The text is not an error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an error code: expected TDM and four digits, as in TDM0104")]
pub struct InvalidCode;

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TDM{:04}", self.0)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Code {
    type Err = InvalidCode;

    fn from_str(text: &str) -> Result<Self, InvalidCode> {
        let prefixed = text.get(..3).is_some_and(|prefix| prefix.eq_ignore_ascii_case("TDM"));
        let digits = text.get(3..).filter(|digits| prefixed && digits.len() == 4);
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        digits.ok_or(InvalidCode)?.parse().map(Self).map_err(|_| InvalidCode)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// An error for people: what, because, try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {what}; because {because}; try: {try_}")]
pub struct Problem {
    /// Its number.
    pub code: Code,
    /// What could not be done.
    pub what: String,
    /// Why, with its numbers.
    pub because: String,
    /// What may help.
    #[serde(rename = "try")]
    pub try_: String,
}

impl Problem {
    /// A problem in words.
    pub fn new(
        code: Code,
        what: impl Into<String>,
        because: impl Into<String>,
        try_: impl Into<String>,
    ) -> Self {
        Self { code, what: what.into(), because: because.into(), try_: try_.into() }
    }

    /// A problem whose cause is another error: every cause of the chain is said, the nearest first.
    pub fn caused_by(
        code: Code,
        what: impl Into<String>,
        cause: &(dyn StdError + 'static),
        try_: impl Into<String>,
    ) -> Self {
        Self::new(code, what, chain(cause), try_)
    }

    /// What a program may conclude from it.
    pub fn exit(&self) -> Exit {
        codes::entry(self.code).map_or(Exit::Failed, |entry| entry.exit)
    }
}

/// An error and its causes as one line; a cause that repeats the text before it is left out.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            let _ = write!(text, ": {words}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_go_both_ways() {
        assert_eq!("TDM0104".parse(), Ok(Code(104)));
        assert_eq!("tdm0104".parse(), Ok(Code(104)));
        assert_eq!(Code(104).to_string(), "TDM0104");
        for text in ["", "TDM", "TDM104", "TDM00104", "TDM+104", "orders", "ééé0104"] {
            assert_eq!(text.parse::<Code>(), Err(InvalidCode), "{text}");
        }
    }

    #[test]
    fn the_field_is_called_try() {
        let problem = Problem::new(codes::CANNOT_LISTEN, "w", "b", "t");
        let json = serde_json::to_string(&problem).unwrap();
        assert_eq!(json, r#"{"code":"TDM0104","what":"w","because":"b","try":"t"}"#);
        assert_eq!(serde_json::from_str::<Problem>(&json).unwrap(), problem);
    }

    #[test]
    fn every_cause_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read the file")]
        struct Outer(#[source] std::io::Error);
        let outer = Outer(std::io::Error::other("no such disk"));
        assert_eq!(chain(&outer), "cannot read the file: no such disk");
    }
}
