//! Builds what a copy needs before anything of it may be promised or started.
//! In: the configuration. Out: folders, what is durable, the user, a keeper.
//! States: Waiting → Ready; it waits where the disk says no, and the rest of the node goes on.
//! Keeps: INV-2: while it is not known what this node promised, it promises nothing and speaks for
//! no lease: it tells that it cannot, so that others pass it over. INV-12: what an earlier daemon
//! left ends with its lease meanwhile.
//! Not here: a keeper that is lost later (`keeper.rs`).
//! Tested by: `tests.rs`.

use super::acting::Finished;
use super::{SingletonDriver, State};
use crate::driver::wire::Response;
use crate::runtime::clock;
use crate::runtime::supervisor::TaskKind;
use crate::runtime::user::{self, User};
use crate::service::command::CommandConfig;
use crate::telemetry::event_kind::EventKind;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tandem_core::facts::Data;
use tandem_core::reason::Reason;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// What the disk, or who knows the users, said no to is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// A directory service that takes longer does not answer.
const USER_WITHIN: Duration = Duration::from_secs(5);
/// So many questions of one service are open: one that is never answered keeps its thread for good.
pub(super) const QUESTIONS_MAX: usize = 2;
/// For so long a copy whose user is not known is not judged by programs.
const UNJUDGED_MAX: Duration = Duration::from_secs(60);
/// A keeper that lives tells by then what it holds; where there is none, promises do not wait, nor
/// does the end of what one that is frozen holds: this is less than a lease.
const FIRST_WORD: Duration = Duration::from_millis(500);

impl SingletonDriver {
    /// Waits until it is; false if the node stops before.
    pub(super) async fn is_ready(&mut self, stop: &CancellationToken) -> bool {
        let mut told = None;
        let state = loop {
            let config = self.it.config.clone();
            let read = tokio::task::spawn_blocking(move || prepare(&config)).await;
            match read.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(state) => break state,
                Err(why) => {
                    self.tell_not_ready(&why, &mut told);
                    self.fence_beside_keeper(clock::now());
                    if !self.waits(&why, stop).await {
                        return false;
                    }
                }
            }
        };
        if told.is_some() {
            self.tell(EventKind::InstanceRecovered, "what kept it from being run is gone");
        }
        self.own.data = Data::Present;
        self.durable = state;
        self.own.promised = state.promised;
        self.own.promoted = state.begun;
        if self.it.config.run_as.is_some() {
            self.user = Err("who its user is was not answered yet".to_owned());
            self.unanswered_since = Some(clock::now());
        }
        self.reattach();
        // Nothing else is under way that could be finished. Who its user is, too, is not waited for
        // any longer: a directory service may be slow, and a lease passes.
        let until = Instant::now() + FIRST_WORD;
        while self.attaching || self.user.is_err() {
            match timeout_at(until, self.finished.1.recv()).await {
                Ok(Some(finished)) => self.on_finished(finished).await,
                Ok(None) | Err(_) => break,
            }
        }
        true
    }

    /// Whether who its user is may still be answered: then what needs it waits. It is asked again
    /// and again, also where there was none: a directory that is away says that, too.
    pub(super) fn awaits_user(&mut self) -> bool {
        let (now, Some(since)) = (clock::now(), self.unanswered_since) else { return false };
        if now >= self.look_at && !std::mem::replace(&mut self.looks_up, true) {
            self.look_up();
        }
        now < since.plus(UNJUDGED_MAX)
    }

    /// Asks who the present copy's user is.
    fn look_up(&self) {
        let (config, sender, life) = (self.it.config.clone(), self.finished.0.clone(), self.lives);
        let questions = Arc::clone(&self.questions);
        self.it.supervisor.spawn("user of a command", TaskKind::Session, async move {
            let _ = sender.send(found(config, life, questions).await).await;
        });
    }

    /// What the answer was.
    pub(super) fn on_found(&mut self, life: u64, user: Result<Option<User>, String>) {
        (self.looks_up, self.look_at) = (false, clock::now().plus(AGAIN));
        if life != self.lives {
            // Of one that is over.
            return;
        }
        match &user {
            Ok(_) => self.unanswered_since = None,
            Err(why) => {
                self.unanswered_since.get_or_insert(clock::now());
                if self.user.as_ref().err() != Some(why) {
                    tracing::warn!(service = %self.service(), why, "its user is not known");
                }
            }
        }
        self.user = user;
    }

    fn tell_not_ready(&mut self, why: &String, told: &mut Option<String>) {
        if told.as_ref() == Some(why) {
            return;
        }
        *told = Some(why.clone());
        let message = format!("nothing of it is run here, nor promised: {why}");
        self.it.explanations.note(self.service(), "instance", Vec::new(), &Reason::new(&message));
        if self.it.beside.is_none() {
            self.own.data = Data::Quarantined { reason: message.clone() };
            self.publish();
        }
        self.tell(EventKind::InstanceQuarantined, message);
    }

    /// Answers whoever asks meanwhile; false if the node stops.
    async fn waits(&mut self, why: &str, stop: &CancellationToken) -> bool {
        let pause = sleep(AGAIN);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return false,
                () = &mut pause => return true,
                Some(finished) = self.finished.1.recv() => self.on_finished(finished).await,
                Some(change) = self.it.changes.recv() => self.on_change(change),
                // Asked for again by whoever plans.
                Some(_term) = self.it.asks.recv() => {}
                Some(asked) = self.it.wishes.recv() => {
                    let _ = asked.answer.send(Response::Refused(why.to_owned()));
                }
            }
        }
    }
}

/// The folders: Tandem's own closed to others. Then what is durable.
fn prepare(config: &CommandConfig) -> Result<State, String> {
    let failed =
        |path: &Path, error: io::Error| format!("cannot read or make {}: {error}", path.display());
    let (run_dir, dir) = (config.run_dir(), &config.dir);
    std::fs::create_dir_all(&run_dir).map_err(|error| failed(&run_dir, error))?;
    let closed = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&run_dir, closed).map_err(|error| failed(&run_dir, error))?;
    if config.run_as.is_none() {
        own_folder(config, None)?;
    }
    State::load(dir).map_err(|error| {
        format!(
            "{}: {error}; put it back as it was, or tandem remove {}, empty its folder and let it \
             join again",
            State::path(dir).display(),
            config.me
        )
    })
}

/// Whom a command runs as; none is the daemon's user. The working folder that Tandem makes belongs
/// to that user.
pub(super) async fn found(config: CommandConfig, life: u64, questions: Arc<Semaphore>) -> Finished {
    let looked = async {
        let permit = questions.acquire_owned().await.map_err(|error| error.to_string())?;
        let found = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let found = match &config.run_as {
                Some(name) => user::find(name).map_err(|error| error.to_string())?,
                None => None,
            };
            own_folder(&config, found.as_ref()).map(|()| found)
        });
        found.await.map_err(|error| error.to_string())?
    };
    let late = |_| Err(format!("who its user is was not answered within {USER_WITHIN:?}"));
    Finished::Found { life, user: timeout(USER_WITHIN, looked).await.unwrap_or_else(late) }
}

fn own_folder(config: &CommandConfig, user: Option<&User>) -> Result<(), String> {
    let work = config.dir.join("work");
    if config.cwd != work {
        return Ok(());
    }
    let failed = |error| format!("cannot make {} for its user: {error}", work.display());
    std::fs::create_dir_all(&work).map_err(failed)?;
    match user {
        Some(user) => chown(&work, Some(user.uid), Some(user.gid)).map_err(failed),
        None => Ok(()),
    }
}
