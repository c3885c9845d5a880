//! Carries out one planned action: what is written first, what the keeper is told then.
//! In: `Action`. Out: durable state, commands to the keeper.
//! Keeps: INV-2 a promise is told, and a start made, only after it was written; a fence waits for
//! neither. INV-12 what is started has the lease that is proven at that moment.
//! Not here: what the keeper answers (`keeper.rs`).

use super::progress::KILL_AGAIN;
use super::{Life, SingletonDriver, Why, ready};
use crate::fence;
use crate::fence::client::Attached;
use crate::fence::program;
use crate::fence::protocol::{End, Lease};
use crate::runtime::clock;
use crate::runtime::supervisor::TaskKind;
use crate::runtime::user::User;
use crate::service::command::{Runs, State};
use crate::telemetry::event_kind::EventKind;
use std::time::Duration;
use tandem_core::clustering::active_passive::singleton::Action;
use tandem_core::facts::withdrawal::Wish;
use tandem_core::facts::{Ballot, Process};
use tandem_core::ids::Term;
use tandem_core::reason::Reason;
use tandem_core::time::Timestamp;

/// A lease that ends sooner is not started under.
const LEASE_LEFT: Duration = Duration::from_millis(100);
/// A disk that does not take the state is tried again after this.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
/// What becomes the command opens a log, changes the user and reads the program, no more.
const LAUNCH_MAX: Duration = Duration::from_secs(10);

/// What the keeper is told to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    OnStart,
    Command,
    OnStop,
}

impl Part {
    /// What a later daemon is told of it: only the command is taken over.
    const fn runs(self) -> Runs {
        match self {
            Self::Command => Runs::Command,
            Self::OnStart | Self::OnStop => Runs::Hook,
        }
    }

    /// What its node says until it runs, if nothing came in between.
    const fn told(self) -> Process {
        match self {
            Self::OnStart | Self::Command => Process::Starting,
            Self::OnStop => Process::Stopping,
        }
    }
}

/// What is being made durable, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Promise(Term),
    Begin { term: Term, part: Part, life: u64 },
    GoOn(Term),
}

/// What a task tells the driver.
#[derive(Debug)]
pub(super) enum Finished {
    Written(Work, State, Result<(), std::io::Error>),
    Checked { life: u64, answer: Result<(), String> },
    AskedToStop(Result<(), program::Error>),
    ToldOfPartitions { version: u64, answer: Result<(), program::Error> },
    Looked(Option<u64>),
    Swept { life: u64, pids: Vec<i32> },
    Attached(Result<Attached, fence::client::Error>),
    Found { life: u64, user: Result<Option<User>, String> },
}

/// What the keeper said of the end of a copy while what asked for that end still ran.
#[derive(Clone, Debug)]
pub(super) enum Ended {
    Exited(End),
    Idle,
}

impl SingletonDriver {
    pub(super) async fn act(&mut self, action: Action, why: &Reason) {
        match action {
            Action::Fence => return self.fence().await,
            Action::Withdraw => return self.withdraw(why.text()),
            Action::Return => {
                self.own.withdrawn = None;
                return;
            }
            Action::Stop => return self.stop_by_plan(why).await,
            Action::Vote { term, held } => {
                self.own.ballot = Some(Ballot { term, position: None, held });
                return;
            }
            // One at a time; what was not written in time is planned again.
            _ if self.writing.is_some() => return,
            Action::Start { .. } | Action::GoOn { .. } if self.keeper_lost => return,
            // A promise is safe whatever the keeper does: it only binds this node.
            Action::Promise { .. } | Action::Start { .. } | Action::GoOn { .. } => {}
        }
        match action {
            Action::Promise { term } => {
                let state = State { promised: self.durable.promised.max(term), ..self.durable };
                self.write(Work::Promise(term), state);
            }
            Action::GoOn { term } => {
                let state = State { begun: term, ..self.durable };
                self.write(Work::GoOn(term), state);
            }
            Action::Start { term } => {
                let has_hook = !self.it.config.on_start.is_empty();
                self.own.process = Process::Starting;
                (self.own.withdrawn, self.wish) = (None, Wish::Agreed);
                self.begin(term, if has_hook { Part::OnStart } else { Part::Command });
            }
            Action::Vote { .. }
            | Action::Withdraw
            | Action::Return
            | Action::Stop
            | Action::Fence => {}
        }
    }

    /// Notes durably what is about to be started, then starts it.
    pub(super) fn begin(&mut self, term: Term, part: Part) {
        self.lives += 1;
        if self.writing.is_some() {
            // One at a time: what is being written, a promise say, is not known from `durable` yet.
            self.begins_next = Some((term, part));
            return;
        }
        let work = Work::Begin { term, part, life: self.lives };
        let (runs, recipe) = (part.runs(), self.recipe());
        self.write(work, State { begun: term, runs, recipe, ..self.durable });
    }

    fn write(&mut self, work: Work, state: State) {
        self.writing = Some(work);
        let (dir, sender) = (self.it.config.dir.clone(), self.finished.0.clone());
        let (config, life) = (self.it.config.clone(), self.lives);
        let questions = std::sync::Arc::clone(&self.questions);
        let may_differ = config.run_as.is_some() || self.it.beside.is_some();
        let looks_up = may_differ && matches!(work, Work::Begin { .. });
        self.it.supervisor.spawn("state of a singleton", TaskKind::Session, async move {
            if looks_up {
                // Who was missing may be there by now.
                let _ = sender.send(ready::found(config, life, questions).await).await;
            }
            let stored = tokio::task::spawn_blocking(move || state.store(&dir)).await;
            let stored = stored.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            let _ = sender.send(Finished::Written(work, state, stored)).await;
        });
    }

    pub(super) async fn on_finished(&mut self, finished: Finished) {
        match finished {
            Finished::Written(work, state, Ok(())) => {
                self.writing = None;
                self.durable = state;
                self.on_written(work).await;
                self.begin_next();
            }
            Finished::Written(work, _, Err(error)) => self.on_not_written(work, &error),
            Finished::Checked { life, answer } => self.on_checked(life, answer).await,
            Finished::AskedToStop(answer) => self.on_asked_to_stop(answer).await,
            Finished::ToldOfPartitions { version, answer } => {
                self.on_told_of_partitions(version, answer);
            }
            Finished::Looked(place) => self.on_looked(place),
            Finished::Swept { life, pids } => self.on_swept(life, &pids),
            Finished::Attached(attached) => self.on_attached(attached).await,
            Finished::Found { life, user } => self.on_found(life, user),
        }
    }

    /// Whether it is known whom what is started now runs as.
    fn user(&mut self) -> Result<(), String> {
        if self.it.config.run_as.is_none() && self.it.beside.is_none() {
            // Nobody was looked for, and who it was before does not count.
            (self.user, self.unanswered_since) = (Ok(None), None);
        }
        self.user.clone().map(drop)
    }

    /// A disk that takes no state: nothing was begun, and that counts as a failed start.
    fn on_not_written(&mut self, work: Work, error: &std::io::Error) {
        self.writing = None;
        self.asked = None;
        let service = self.service().clone();
        tracing::error!(%service, %error, ?work, "cannot be made durable");
        self.retry_at = clock::now().plus(WRITE_AGAIN);
        let next = self.begins_next.take().map(|(_, part)| part);
        let begun = match work {
            Work::Begin { part, .. } => Some(part),
            Work::Promise(_) | Work::GoOn(_) => next,
        };
        if self.life != Life::Nothing || begun.is_none_or(|it| it.told() != self.own.process) {
            return;
        }
        self.own.process = Process::Stopped;
        let dir = self.it.config.dir.display();
        let message = format!("it was not started: {dir} takes no state: {error}");
        self.tell(EventKind::InstanceExited, message);
        self.failed();
    }

    /// What could not begin while something else was written; nothing where a later term was
    /// promised meanwhile.
    fn begin_next(&mut self) {
        let Some((term, part)) = self.begins_next.take() else { return };
        if self.life != Life::Nothing || self.own.process != part.told() {
            return;
        }
        if self.own.promised > term || self.durable.promised > term {
            self.own.process = Process::Stopped;
            return;
        }
        self.begin(term, part);
    }

    async fn on_written(&mut self, work: Work) {
        match work {
            Work::Promise(term) => {
                self.own.promised = self.own.promised.max(term);
                // Told first: whatever is answered from now on supports no older lease.
                self.publish();
                self.answered = self.it.hub.answered_all();
            }
            Work::GoOn(term) => {
                self.own.serving = self.own.serving.map(|_| term);
                self.own.promoted = term;
            }
            Work::Begin { term, part, life } => {
                let waits = self.life == Life::Nothing && self.own.process == part.told();
                if life == self.lives && waits && self.durable.recipe != self.recipe() {
                    // It changed meanwhile: what is noted is what is launched.
                    self.begin(term, part);
                } else if life == self.lives && waits {
                    self.own.promoted = term;
                    self.launch(part).await;
                } else if waits && self.begins_next.is_none() {
                    self.own.process = Process::Stopped;
                }
            }
        }
    }

    /// Has the keeper run the command, or a hook, under the lease that is proven now, if one is
    /// needed.
    async fn launch(&mut self, part: Part) {
        let now = clock::now();
        let Some(lease) = self.may_run(now) else {
            self.life = Life::Nothing;
            self.own.process = Process::Stopped;
            return;
        };
        let words = match part {
            Part::OnStart => &self.it.config.on_start,
            Part::Command => &self.it.config.command,
            Part::OnStop => &self.it.config.on_stop,
        };
        let words = words.clone();
        // A hook may be what makes room.
        let has_room = || match part {
            Part::Command => self.it.config.finds_its_port_free(),
            Part::OnStart | Part::OnStop => Ok(()),
        };
        if let Err(why) = has_room().and_then(|()| self.user()) {
            return self.not_started(part, &why);
        }
        let spec = self.spec(&words, lease);
        // Told, whatever comes back.
        if let Lease::Until(until) = lease {
            self.lease = until;
            self.it.hub.lease(self.service(), until);
        }
        self.output.begin();
        match self.keeper.start(spec).await {
            Ok(()) => {
                self.life = match part {
                    Part::OnStart => Life::Opening(now.plus(self.it.config.hook_max)),
                    Part::Command => Life::Launching(now.plus(LAUNCH_MAX)),
                    Part::OnStop => Life::Closing(now.plus(self.it.config.hook_max)),
                };
            }
            Err(error) if !says_that_nothing_runs(&error) => self.lose_keeper(&error),
            Err(error) => {
                self.not_started(part, &error.to_string());
                // Whatever is there, nothing of it is wanted.
                let _ = self.keeper.kill().await;
            }
        }
    }

    fn not_started(&mut self, part: Part, why: &str) {
        self.life = Life::Nothing;
        self.own.process = Process::Stopped;
        if part == Part::OnStop {
            return self.tell(EventKind::HookFailed, format!("on_stop was not started: {why}"));
        }
        self.tell(EventKind::InstanceExited, format!("it was not started: {why}"));
        self.failed();
    }

    /// Whether there is a hook after an end, and a lease to run it under if it needs one.
    pub(super) fn closes(&self) -> bool {
        !self.it.config.on_stop.is_empty() && self.may_run(clock::now()).is_some()
    }

    /// Whether something runs is not known until a keeper says so: nobody else may start one before
    /// the lease has passed (INV-12).
    fn lose_keeper(&mut self, error: &fence::client::Error) {
        tracing::warn!(service = %self.service(), %error, "the keeper may have started it or not");
        self.keeper_lost = true;
        self.own.process = Process::Stopping;
        self.life = Life::Ending { kill_at: clock::now(), why: Why::Fenced };
    }

    /// The lease that is proven now; without a bound where none is needed.
    fn may_run(&self, now: Timestamp) -> Option<Lease> {
        if self.it.beside.is_some() {
            return Some(Lease::Unlimited);
        }
        let until = self.proven_now().filter(|until| *until >= now.plus(LEASE_LEFT));
        until.map(Lease::Until)
    }

    /// Kills it at once; a start that is being written does not happen.
    pub(super) async fn fence(&mut self) {
        let now = clock::now();
        match self.life {
            // A daemon that has not heard its keeper yet does not know what runs.
            Life::Nothing if self.unheard.is_some() => return self.fence_unheard(now),
            Life::Nothing if self.keeper_lost && self.own.process == Process::Stopping => return,
            Life::Nothing => {
                self.lives += 1;
                self.own.process = Process::Stopped;
                return;
            }
            Life::Ending { kill_at, why: Why::Fenced } if kill_at > now => return,
            Life::Opening(_)
            | Life::Launching(_)
            | Life::Runs
            | Life::Ending { .. }
            | Life::Closing(_) => {}
        }
        self.life = Life::Ending { kill_at: now.plus(KILL_AGAIN), why: Why::Fenced };
        self.own.process = Process::Stopping;
        self.own.serving = None;
        self.kill().await;
    }
}

/// A refusal is a word about what runs, unless something does; anything else is none.
const fn says_that_nothing_runs(error: &fence::client::Error) -> bool {
    use fence::protocol::Refusal::{InBetween, StillRuns};
    matches!(error, fence::client::Error::Refused(refusal)
        if !matches!(refusal, StillRuns { .. } | InBetween { .. }))
}
