//! Talks to pg_rewind: makes a former primary a standby of its successor again.
//! In: the source, which has ended a checkpoint since its promotion (the caller ensures it, H18).
//! Out: `Rewind`, or an error that says whether to try again or to clone.
//! Keeps: H5 no copy is left behind that starts as a primary; H19 sentinel around it; H20 own
//! configuration, no copied slots; H21 the recovery that
//! pg_rewind runs by itself only ever touches a former primary.
//! Tested by: below, and `tests/postgres_adapter.rs`.

use super::super::{ControlState, Error, Postgres, Sentinel, config};
use super::{display, is_unreachable};
use tandem_core::ids::NodeId;
use tokio_util::sync::CancellationToken;

/// What a rewind did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewind {
    /// The data was rewound.
    Rewound,
    /// The data had not diverged: nothing changed.
    NotNeeded,
}

impl Postgres {
    /// Rewinds a stopped instance to follow `source`.
    ///
    /// # Errors
    /// `SourceUnavailable`: nothing changed, try again. `NeedsClone`: it cannot be rewound.
    /// `NotRewindable`: a standby that crashed. `Cancelled`: the sentinel stays.
    pub async fn rewind_from(
        &self,
        source: &NodeId,
        cancel: CancellationToken,
    ) -> Result<Rewind, Error> {
        config::usable(&self.load_state().await?)?;
        self.alone().await?;
        self.check_data().await?;
        match self.inspect_stopped().await?.state {
            ControlState::ShutDown | ControlState::ShutDownInRecovery => {}
            // pg_rewind recovers these in single-user mode, which is right for a former primary
            // only. Crash recovery is one's own WAL: a standby's recovery has another state.
            ControlState::InProduction
            | ControlState::ShuttingDown
            | ControlState::InCrashRecovery => {}
            ControlState::InArchiveRecovery | ControlState::StartingUp => {
                return Err(Error::NotRewindable);
            }
        }
        self.write_files(Some(source)).await?;
        self.keep_own_files().await?;
        self.set_sentinel(Some(Sentinel::Rewinding)).await?;
        // Single-user mode refuses to run with it; nobody starts this while the sentinel is set.
        self.without_signal().await?;
        let done = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            done = self.pg_rewind(source) => done,
        };
        let untouched = matches!(done, Ok(_) | Err(Error::SourceUnavailable { .. }));
        if untouched {
            self.end_copy(source).await?;
        } else {
            // Half of it lies there until it is copied: no primary, whoever starts it (H5).
            self.next_start_in_recovery().await?;
        }
        done
    }

    async fn pg_rewind(&self, source: &NodeId) -> Result<Rewind, Error> {
        let server = format!("--source-server={}", self.conninfo(source, Some("postgres"))?);
        let target = format!("--target-pgdata={}", display(&self.data_dir()));
        let finished = self.run("pg_rewind", [target.as_str(), &server, "--no-sync"]).await?;
        let success = finished.status.success();
        let all = finished.output.clone();
        let verdict = judge(success, &all);
        match verdict {
            Verdict::Done(rewind) => Ok(rewind),
            Verdict::Retry => {
                let output = last_lines(&all);
                Err(Error::SourceUnavailable { source_node: source.clone(), output })
            }
            Verdict::Clone => Err(Error::NeedsClone { because: last_lines(&all) }),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Done(Rewind),
    Retry,
    Clone,
}

/// Once pg_rewind says where it rewinds to, it changes files, and a failure leaves a mixture (H19).
fn judge(success: bool, output: &str) -> Verdict {
    let began = output.contains("rewinding from last common checkpoint");
    match (success, began) {
        (true, true) => Verdict::Done(Rewind::Rewound),
        (true, false) => Verdict::Done(Rewind::NotNeeded),
        (false, false) if is_unreachable(output) => Verdict::Retry,
        (false, _) => Verdict::Clone,
    }
}

fn last_lines(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(4)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failure_before_the_first_change_is_tried_again() {
        let refused = "pg_rewind: error: connection to server at \"x\" failed: refused";
        assert_eq!(judge(false, refused), Verdict::Retry);
        let began = format!("pg_rewind: rewinding from last common checkpoint at 0/2\n{refused}");
        assert_eq!(judge(false, &began), Verdict::Clone);
        assert_eq!(judge(true, &began), Verdict::Done(Rewind::Rewound));
        assert_eq!(judge(true, "no rewind required"), Verdict::Done(Rewind::NotNeeded));
        assert_eq!(judge(false, "could not find previous WAL record at 0/3"), Verdict::Clone);
    }
}
