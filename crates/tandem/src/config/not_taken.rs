//! Talks to the writer of the file about settings that PostgreSQL itself does not take.
//! In: what its program said. Out: `Problem`s at their places, as for every other mistake.
//! Not here: asking the program (`service/postgres/config/trial.rs`), which a file that is only
//! read must not need.
//! Tested by: `config/tests/values.rs`.

use super::problem::{Code, Problem, Problems, Say, Source};
use super::valid::Config;
use serde::{Deserialize, Serialize};
use tandem_core::ids::ServiceId;

/// A setting that PostgreSQL does not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotTaken {
    /// Of which service.
    pub service: ServiceId,
    /// Which.
    pub name: String,
    /// PostgreSQL's words.
    pub because: String,
    /// Of which version.
    pub major: u32,
    /// There is none of that name; else its value is to blame.
    pub unknown: bool,
    /// The name that was probably meant.
    pub nearest: Option<String>,
}

/// Each of them at its place in the file.
pub fn not_taken(config: &Config, refused: &[NotTaken]) -> Vec<Problem> {
    let mut problems = Problems::new(Source::new(&config.text, &config.file_name));
    for NotTaken { service, name, because, major, unknown, nearest } in refused {
        let key = format!("services.{service}.postgresql.{name}");
        let what = format!("{key} cannot be set{}", if *unknown { "" } else { " to this" });
        let because = format!("PostgreSQL {major} says: {because}");
        let instead = match (unknown, nearest) {
            (true, Some(nearest)) => format!("did you mean {nearest}?"),
            (true, None) => "correct its name, or remove it".to_owned(),
            (false, _) => "correct its value, or remove it".to_owned(),
        };
        problems.error(Code::Setting, &config.place_of(&key), Say::new(what, because, instead));
    }
    problems.into_sorted()
}
