//! Reads what the own copy prints: some goes into the node's log, and its file stays within bounds.
//! In: the file. Out: lines of the log, marked with the service.
//! Keeps: a flood costs no more than a look a second: most of it stays in the file.
//! Not here: the file itself (`service/command/log.rs`).
//! Tested by: `tests.rs`.

use super::acting::Finished;
use super::{Life, SingletonDriver};
use crate::runtime::supervisor::TaskKind;
use crate::service::command::{CommandConfig, Printed};
use std::io;
use std::time::Duration;
use tandem_core::time::Timestamp;

/// How often it is looked at while something may print.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What `TANDEM_LOG` turns it off by: `info,output=off`.
const TARGET: &str = "output";

/// How far it is known.
#[derive(Debug, Default)]
pub(super) struct Output {
    looks: bool,
    looked_at: Timestamp,
    /// None: what is there already was printed before this daemon came.
    place: Option<u64>,
    /// Nothing is there that could print more, and all that was printed has been seen.
    is_over: bool,
}

impl Output {
    /// Something may print from now on.
    pub(super) const fn begin(&mut self) {
        self.is_over = false;
    }
}

impl SingletonDriver {
    /// Looks, if it is time; last words at once.
    pub(super) fn follow_output(&mut self, now: Timestamp) {
        let has_ended = self.life == Life::Nothing;
        let output = &mut self.output;
        let is_due = has_ended || now.since(output.looked_at) >= LOOK_EVERY;
        if output.looks || output.is_over || !is_due {
            return;
        }
        output.looks = true;
        output.looked_at = now;
        output.is_over = has_ended;
        let (config, place, sender) =
            (self.it.config.clone(), self.output.place, self.finished.0.clone());
        self.it.supervisor.spawn("output of a command", TaskKind::Session, async move {
            let service = config.service.clone();
            let looked = tokio::task::spawn_blocking(move || look(&config, place)).await;
            let place = match looked.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(place) => Some(place),
                Err(error) => {
                    tracing::warn!(%service, %error, "its output.log cannot be followed");
                    place
                }
            };
            let _ = sender.send(Finished::Looked(place)).await;
        });
    }

    pub(super) const fn on_looked(&mut self, place: Option<u64>) {
        self.output.looks = false;
        self.output.place = place;
    }
}

/// Shows what is new and moves what is too much; where to go on.
fn look(config: &CommandConfig, place: Option<u64>) -> io::Result<u64> {
    let Printed { lines, left_out_bytes, place } = config.printed_since(place)?;
    let service = &config.service;
    if left_out_bytes > 0 {
        tracing::info!(target: TARGET, %service, left_out_bytes, "it prints more: see output.log");
    }
    for line in lines {
        tracing::info!(target: TARGET, %service, "{line}");
    }
    Ok(if config.bound_log()? { 0 } else { place })
}
