//! Talks to those who watch: logs, the typed list of events, and errors that say what to try.
//! In: what modules report. Out: lines on stderr, `Event`s for the API and the drill, `Problem`s.
//! Not here: metrics as text (`api/metrics.rs`), errors as text (`cli/report.rs`).
//! Tested by: each file, and by every error code having its page.

pub mod codes;
pub mod event_kind;
pub mod events;
pub mod logs;
pub mod problem;
pub mod process;
