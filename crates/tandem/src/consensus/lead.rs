//! Talks to the leader, wherever it is: proposes, and asks how far the agreement is.
//! In: `Command`. Out: `Applied`, or whether it was surely not, or perhaps, agreed.
//! A leader that is elected but has not proven itself refuses with "forward to nobody" for a few
//! milliseconds: that means try again, not that there is none.
//! Keeps: H4, a lease is not believed after the machine slept.
//! Tested by: `tests/stories.rs`.

use super::types::{LogId, Proposal, TypeConfig};
use super::wire::{self, Outcome, Request, Response, Task};
use super::{Consensus, Error, Leadership};
use crate::runtime::clock;
use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, RaftError};
use openraft::raft::ClientWriteResponse;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tandem_core::cluster::command::Command;
use tandem_core::cluster::state::Applied;
use tandem_core::time::Timestamp;
use tokio::time::{Instant, timeout_at};

/// A command larger than this would not travel well with others.
const COMMAND_BYTES_MAX: usize = 2 << 20;

/// Pauses between attempts to find a leader.
const RETRY_FIRST: Duration = Duration::from_millis(2);
const RETRY_MAX: Duration = Duration::from_millis(50);
/// No attempt but the first has less time than this.
const LAST_TRY: Duration = Duration::from_millis(100);

/// The slack of the two clocks against each other; a sleep is longer.
const CLOCKS_APART_MAX: Duration = Duration::from_millis(5);

/// Notices that the machine slept: Raft's clock stands still meanwhile, the others' do not.
#[derive(Debug)]
pub struct Suspension {
    started: (Instant, Timestamp),
    /// Microseconds of sleep that were already answered for.
    slept_us: AtomicU64,
}

impl Default for Suspension {
    fn default() -> Self {
        Self { started: (Instant::now(), clock::now()), slept_us: AtomicU64::new(0) }
    }
}

impl Suspension {
    fn slept_us(&self) -> u64 {
        let awake = self.started.0.elapsed();
        let all = clock::now().since(self.started.1);
        u64::try_from(all.saturating_sub(awake).as_micros()).unwrap_or(u64::MAX)
    }

    /// How much it slept in all, if that is more than was answered for.
    fn news(&self) -> Option<u64> {
        let (slept, known) = (self.slept_us(), self.slept_us.load(Ordering::Acquire));
        (Duration::from_micros(slept.saturating_sub(known)) > CLOCKS_APART_MAX).then_some(slept)
    }

    fn answered(&self, slept_us: u64) {
        self.slept_us.fetch_max(slept_us, Ordering::AcqRel);
    }
}

impl Consensus {
    /// Has a command agreed, through whichever node leads.
    ///
    /// # Errors
    /// `NotProposed`: surely not agreed. `Unknown`: perhaps.
    pub async fn propose(&self, command: Command, deadline: Duration) -> Result<Applied, Error> {
        let bytes = wire::encode(&command).map_or(usize::MAX, |bytes| bytes.len());
        if bytes > COMMAND_BYTES_MAX {
            return Err(Error::TooLarge { bytes, bytes_max: COMMAND_BYTES_MAX });
        }
        match self.through_leader(Task::Propose(command), deadline).await? {
            Outcome::Applied(applied) => Ok(applied),
            other => Err(self.error_of(other, deadline)),
        }
    }

    /// Proves that this node leads at this moment, by the lease that a majority acknowledged.
    ///
    /// # Errors
    /// It does not, or cannot prove it.
    pub async fn confirm_leadership(&self) -> Result<(), Error> {
        let slept = self.inner.suspension.news();
        // H4: the lease was measured by a clock that slept; a majority must answer anew.
        let policy = if slept.is_some() { ReadPolicy::ReadIndex } else { ReadPolicy::LeaseRead };
        match self.inner.raft.get_read_linearizer(policy).await {
            Ok(_) => {
                if let Some(slept) = slept {
                    self.inner.suspension.answered(slept);
                }
                Ok(())
            }
            Err(RaftError::APIError(_)) => Err(Error::NotLeading { leader: self.known_leader() }),
            Err(RaftError::Fatal(fatal)) => Err(Error::Stopped(fatal)),
        }
    }

    /// Waits until this node has applied everything that was committed when this was called.
    ///
    /// # Errors
    /// No leader answered, or this node is too far behind.
    pub async fn linearizable(&self, deadline: Duration) -> Result<(), Error> {
        let until = Instant::now() + deadline;
        let index = match self.through_leader(Task::ReadIndex, deadline).await? {
            Outcome::Index(index) => index,
            other => return Err(self.error_of(other, deadline)),
        };
        let mut agreed = self.state();
        match timeout_at(until, agreed.wait_for(|agreed| agreed.index >= index)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(self.stopped()),
            Err(_) => {
                let applied = self.inner.agreed.borrow().index;
                Err(Error::Behind { index, applied, waited: deadline })
            }
        }
    }

    /// Asks the leader until it answers or the time is up.
    pub(super) async fn through_leader(
        &self,
        task: Task,
        deadline: Duration,
    ) -> Result<Outcome, Error> {
        let begun = Instant::now();
        let until = begun + deadline;
        let mut leadership = self.leadership();
        let mut pause = RETRY_FIRST;
        loop {
            leadership.mark_unchanged();
            let leader = match self.lead(task.clone(), until).await {
                Outcome::Elsewhere(leader) => leader,
                Outcome::Stopped => return Err(self.stopped()),
                outcome => return Ok(outcome),
            };
            if let Some(leader) = leader.as_ref().filter(|leader| **leader != self.inner.me)
                && let Some(outcome) = self.ask(leader, &task, until).await
            {
                return Ok(outcome);
            }
            // What is begun with less time left may be cut off, and then nobody knows what became
            // of it.
            let last = until.checked_sub(LAST_TRY).unwrap_or(until);
            tokio::select! {
                _ = leadership.changed() => {}
                () = tokio::time::sleep(pause) => pause = RETRY_MAX.min(pause * 2),
                () = tokio::time::sleep_until(last) => {}
            }
            if Instant::now() >= last {
                return Err(Error::NotProposed { waited: begun.elapsed(), leader });
            }
        }
    }

    /// Asks another node once; `None` if it surely did nothing and another attempt is right.
    async fn ask(&self, leader: &super::NodeId, task: &Task, until: Instant) -> Option<Outcome> {
        let left = until.saturating_duration_since(Instant::now());
        let harmless = matches!(task, Task::ReadIndex);
        // A question can be asked again elsewhere; a proposal that may have arrived cannot.
        let within = if harmless { left.min(self.inner.timing.election_max * 2) } else { left };
        let request = Request::Lead { task: task.clone(), within };
        match self.inner.caller.call(leader, request, within).await {
            Ok(Response::Outcome(Outcome::Elsewhere(_) | Outcome::Stopped)) => None,
            Ok(Response::Outcome(Outcome::Unknown)) if harmless => None,
            Ok(Response::Outcome(outcome)) => Some(outcome),
            Err(error) if error.surely_ignored() || harmless => None,
            Ok(_) | Err(_) => Some(Outcome::Unknown),
        }
    }

    /// Does a task if this node leads; never asks another.
    pub(super) async fn lead(&self, task: Task, until: Instant) -> Outcome {
        match task {
            Task::Propose(command) => {
                let write = self.inner.raft.client_write(Proposal(command));
                match timeout_at(until, write).await {
                    Ok(written) => self
                        .written(written)
                        .map_or_else(|outcome| outcome, |(applied, _)| Outcome::Applied(applied)),
                    Err(_) => Outcome::Unknown,
                }
            }
            Task::ReadIndex => {
                let read = self.inner.raft.get_read_linearizer(ReadPolicy::ReadIndex);
                match timeout_at(until, read).await {
                    Ok(Ok(read)) => Outcome::Index(read.read_log_id().index()),
                    Ok(Err(RaftError::APIError(_))) => Outcome::Elsewhere(self.known_leader()),
                    Ok(Err(RaftError::Fatal(_))) => Outcome::Stopped,
                    Err(_) => Outcome::Elsewhere(None),
                }
            }
            // Boxed: the largest of the three by far, and the rarest.
            Task::Change(change) => Box::pin(self.change(change, until)).await,
        }
    }

    /// What a write brought: the answer and where it is in the log.
    pub(super) fn written(
        &self,
        result: Result<
            ClientWriteResponse<TypeConfig>,
            RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
        >,
    ) -> Result<(Applied, LogId), Outcome> {
        match result {
            Ok(response) => Ok((response.data, response.log_id)),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Err(Outcome::Elsewhere(forward.leader_id))
            }
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => {
                Err(Outcome::Unknown)
            }
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => {
                Err(Outcome::Refused(error.into()))
            }
            Err(RaftError::APIError(ClientWriteError::PreconditionFailed(_))) => {
                Err(Outcome::Refused(super::Refusal::ChangeUnderWay))
            }
            Err(RaftError::Fatal(_)) => Err(Outcome::Stopped),
        }
    }

    pub(super) fn known_leader(&self) -> Option<super::NodeId> {
        let Leadership { leader, .. } = &*self.inner.leadership.borrow();
        leader.clone()
    }

    pub(super) fn stopped(&self) -> Error {
        let state = self.inner.raft.metrics().borrow_watched().running_state.clone();
        Error::Stopped(state.err().unwrap_or(Fatal::Stopped))
    }

    /// An outcome that is not the one asked for.
    pub(super) fn error_of(&self, outcome: Outcome, waited: Duration) -> Error {
        match outcome {
            Outcome::Refused(refusal) => Error::Refused(refusal),
            Outcome::Stopped => self.stopped(),
            Outcome::Elsewhere(leader) => Error::NotProposed { waited, leader },
            // An answer to another question proves nothing.
            Outcome::Unknown | Outcome::Applied(_) | Outcome::Done | Outcome::Index(_) => {
                Error::Unknown { waited }
            }
        }
    }
}
