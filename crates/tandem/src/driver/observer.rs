//! Talks to the own PostgreSQL many times a second: what is it, how far is it, does it answer.
//! In: whether it runs, and nudges to look now. Out: the newest observation, and when it began.
//! Keeps: H28, H29 a server that does not answer, one whose connections are used up and a stuck
//! disk are told apart, and none of them blocks a plan; H27 a full disk gives up its ballast; a
//! primary that is being shut down and lets nobody in is hung.

use crate::runtime::clock;
use crate::runtime::supervisor::{Supervisor, TaskKind};
use crate::service::postgres::{self, Observation, Postgres};
use std::sync::Arc;
use std::time::Duration;
use tandem_core::facts::{Health, InstanceFacts, Process, Stream};
use tandem_core::ids::TimelineId;
use tandem_core::time::Timestamp;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Between two looks when nobody nudges.
const EVERY: Duration = Duration::from_millis(100);
/// The same while nothing moves: looking is much of what an idle daemon does.
const QUIET: Duration = Duration::from_millis(200);
/// An answer that takes longer is none.
const DEADLINE: Duration = Duration::from_millis(500);
/// Between two probes of a new connection and of the disk.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// A probe that takes longer counts as stuck so far.
const PROBE_DEADLINE: Duration = Duration::from_secs(1);

/// One look.
#[derive(Clone, Debug)]
pub struct Observed {
    /// When the look began: what changed later is not in it.
    pub began: Timestamp,
    seen: Option<Result<Arc<Observation>, Trouble>>,
    health: Health,
}

/// Why nothing was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// No server there, or it is not ready.
    NotReady,
    /// It is there and does not answer.
    NoAnswer,
}

/// Looks until its supervisor stops.
#[derive(Debug)]
pub struct Observer {
    running: watch::Sender<bool>,
    look: Arc<Notify>,
    observations: watch::Receiver<Observed>,
}

impl Observer {
    /// Starts looking at the instance as it is configured then.
    pub fn start(postgres: watch::Receiver<Postgres>, supervisor: &Supervisor) -> Self {
        let (running, watch_running) = watch::channel(false);
        let look = Arc::new(Notify::new());
        let first = Observed { began: Timestamp(0), seen: None, health: Health::Good };
        let (sender, observations) = watch::channel(first);
        let (health_sender, health) = watch::channel(Health::Good);
        let (role_sender, role) = watch::channel(false);
        let stop = supervisor.stopping();
        supervisor.spawn(
            "instance probes",
            TaskKind::Session,
            Probes { postgres: postgres.clone(), running: watch_running.clone(), is_primary: role }
                .run(health_sender, stop.clone()),
        );
        let eye = Eye {
            postgres,
            running: watch_running,
            look: look.clone(),
            health,
            is_primary: role_sender,
            sender,
        };
        supervisor.spawn("instance observer", TaskKind::Session, eye.run(stop));
        Self { running, look, observations }
    }

    /// The newest observation.
    pub fn observations(&self) -> watch::Receiver<Observed> {
        self.observations.clone()
    }

    /// Look now.
    pub fn look(&self) {
        self.look.notify_one();
    }

    /// Whether there is a server to look at.
    pub fn watch_running(&self, running: bool) {
        self.running.send_if_modified(|old| std::mem::replace(old, running) != running);
    }
}

struct Eye {
    postgres: watch::Receiver<Postgres>,
    running: watch::Receiver<bool>,
    look: Arc<Notify>,
    health: watch::Receiver<Health>,
    is_primary: watch::Sender<bool>,
    sender: watch::Sender<Observed>,
}

impl Eye {
    async fn run(mut self, stop: CancellationToken) {
        let mut observer = self.postgres.borrow_and_update().observer();
        let mut silent_since: Option<Timestamp> = None;
        loop {
            if !*self.running.borrow_and_update() {
                silent_since = None;
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    result = self.running.changed() => if result.is_err() { return },
                }
                continue;
            }
            // Whose standbys count as fed is a matter of the members.
            if self.postgres.has_changed().unwrap_or(false) {
                observer.reconfigure(self.postgres.borrow_and_update().clone());
            }
            let began = clock::now();
            let seen = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                seen = observer.observe(DEADLINE) => seen,
            };
            let observed = self.judge(began, seen, &mut silent_since);
            let pause = if observed.is_as(&self.sender.borrow()) { QUIET } else { EVERY };
            if self.sender.send(observed).is_err() {
                return;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.look.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn judge(
        &mut self,
        began: Timestamp,
        seen: Result<Observation, postgres::Error>,
        silent_since: &mut Option<Timestamp>,
    ) -> Observed {
        let probed = *self.health.borrow();
        match seen {
            Ok(observation) => {
                *silent_since = None;
                self.is_primary.send_replace(!observation.in_recovery);
                Observed { began, seen: Some(Ok(Arc::new(observation))), health: probed }
            }
            Err(postgres::Error::NotRunning | postgres::Error::Starting { .. }) => {
                Observed { began, seen: Some(Err(Trouble::NotReady)), health: probed }
            }
            Err(postgres::Error::ConnectionsUsedUp) => {
                let health = Health::ConnectionsUsedUp;
                Observed { began, seen: Some(Err(Trouble::NotReady)), health }
            }
            Err(error) => {
                let since = *silent_since.get_or_insert(began);
                tracing::debug!(%error, "no observation");
                let health = Health::Hung(clock::now().since(since));
                Observed { began, seen: Some(Err(Trouble::NoAnswer)), health }
            }
        }
    }
}

/// Probes what a kept connection hides: new connections and the disk.
struct Probes {
    postgres: watch::Receiver<Postgres>,
    running: watch::Receiver<bool>,
    is_primary: watch::Receiver<bool>,
}

impl Probes {
    async fn run(mut self, health: watch::Sender<Health>, stop: CancellationToken) {
        let (mut hung_since, mut stuck_since) = (None::<Timestamp>, None::<Timestamp>);
        loop {
            if *self.running.borrow_and_update() {
                health.send_replace(self.probe(&mut hung_since, &mut stuck_since).await);
            } else {
                (hung_since, stuck_since) = (None, None);
                health.send_replace(Health::Good);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PROBE_EVERY) => {}
            }
        }
    }

    async fn probe(
        &self,
        hung_since: &mut Option<Timestamp>,
        stuck_since: &mut Option<Timestamp>,
    ) -> Health {
        let began = clock::now();
        let postgres = self.postgres.borrow().clone();
        let (connection, disk) = tokio::join!(
            postgres.probe_new_connection(PROBE_DEADLINE),
            postgres.probe_disk(PROBE_DEADLINE)
        );
        // A standby refuses until it is consistent. A primary that does so is being shut down, and
        // our own kept connection may be what it waits for.
        let is_closed = matches!(connection, Err(postgres::Error::Starting { .. }))
            && *self.is_primary.borrow();
        let timed_out = |result: &Result<(), postgres::Error>| {
            matches!(
                result,
                Err(postgres::Error::Timeout { .. } | postgres::Error::DiskStuck { .. })
            )
        };
        note(hung_since, is_closed || timed_out(&connection), began);
        note(stuck_since, timed_out(&disk), began);
        let now = clock::now();
        let full = self.is_full(&disk).await;
        match (*stuck_since, *hung_since, connection) {
            (Some(since), _, _) => Health::DiskStuck(now.since(since)),
            (None, Some(since), _) => Health::Hung(now.since(since)),
            (None, None, Err(postgres::Error::ConnectionsUsedUp)) => Health::ConnectionsUsedUp,
            (None, None, _) if full => Health::DiskFull,
            (None, None, _) => Health::Good,
        }
    }
}

impl Probes {
    /// Whether the disk has no room. Its ballast is given up at once: for a shutdown, a move or a
    /// promise. It stays full until that is there again, or it would only seem well (H27).
    async fn is_full(&self, disk: &Result<(), postgres::Error>) -> bool {
        let postgres = self.postgres.borrow().clone();
        match disk {
            Ok(()) => {
                let asked = postgres.is_ballast_released();
                tokio::time::timeout(PROBE_DEADLINE, asked).await.unwrap_or(false)
            }
            Err(postgres::Error::DiskFull { .. }) => {
                let given_up = postgres.release_ballast();
                match tokio::time::timeout(PROBE_DEADLINE, given_up).await {
                    Ok(Err(error)) => tracing::warn!(%error, "the ballast cannot be given up"),
                    Ok(Ok(true)) => tracing::warn!("the disk is full: the ballast is given up"),
                    Ok(Ok(false)) | Err(_) => {}
                }
                true
            }
            Err(_) => false,
        }
    }
}

fn note(since: &mut Option<Timestamp>, is_bad: bool, began: Timestamp) {
    *since = if is_bad { Some(since.unwrap_or(began)) } else { None };
}

impl Observed {
    /// Whether nothing was written, received or replayed in between.
    fn is_as(&self, before: &Self) -> bool {
        let (Some(Ok(now)), Some(Ok(before))) = (&self.seen, &before.seen) else { return false };
        let place = |it: &Observation| {
            let streams = it.receiver.as_ref().is_some_and(|receiver| receiver.streaming);
            (it.in_recovery, it.timeline, it.flushed, it.replayed, streams)
        };
        place(now) == place(before) && now.replicas == before.replicas
    }

    /// The names that commits wait for, as the server has them.
    pub fn sync_names(&self) -> Option<&str> {
        match &self.seen {
            Some(Ok(observation)) => Some(&observation.sync_names),
            Some(Err(_)) | None => None,
        }
    }

    /// Takes what was seen into the facts.
    pub fn apply(&self, own: &mut InstanceFacts, promoting: bool) {
        own.health = self.health;
        let observation = match &self.seen {
            Some(Ok(observation)) => observation,
            Some(Err(Trouble::NotReady)) if own.process == Process::Starting => return,
            Some(Err(Trouble::NotReady | Trouble::NoAnswer)) | None => return,
        };
        // A standby names the timeline that it receives only while it receives, else the one of its
        // last restartpoint, which may be an older one: the same server never goes back.
        let same_standby = own.process == Process::Standby && observation.in_recovery;
        let known = if same_standby { own.timeline } else { TimelineId(0) };
        own.timeline = observation.timeline.max(known);
        own.process = match (observation.in_recovery, promoting) {
            // A primary only once its promotion ended: before, the facts do not say of which term.
            (_, true) => Process::Promoting,
            (true, false) => Process::Standby,
            (false, false) => Process::Primary,
        };
        own.system = Some(observation.system);
        // While a ballot stands, nothing arrives and everything whole was replayed. What else was
        // flushed is the beginning of a record whose end never came: it is in nobody's past, and a
        // standby that has it can follow without a rewind.
        let has_voted = observation.in_recovery && own.ballot.is_some();
        own.flushed = if has_voted { observation.replayed } else { observation.flushed };
        own.flushed_at = self.began;
        own.replayed = observation.replayed;
        own.replay_delay = observation.replay_delay;
        own.data_term = observation.data_term;
        own.checkpointed =
            !observation.in_recovery && observation.checkpoint_timeline == observation.timeline;
        own.pending_restart = observation.pending_restart;
        own.stream = match &observation.receiver {
            Some(receiver) if receiver.streaming => Stream::Connected(receiver.last_message),
            Some(_) | None => Stream::None,
        };
        own.replicas.clone_from(&observation.replicas);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tandem_core::ids::{SystemId, Term};
    use tandem_core::lsn::Lsn;

    fn seen(in_recovery: bool, timeline: u32) -> Observed {
        let observation = Observation {
            in_recovery,
            system: SystemId(7),
            timeline: TimelineId(timeline),
            checkpoint_timeline: TimelineId(1),
            flushed: Lsn(100),
            replayed: Lsn(100),
            replay_delay: Duration::ZERO,
            data_term: Term(1),
            receiver: None,
            replicas: [].into(),
            duplicates: [].into(),
            sync_names: String::new(),
            replay_paused: false,
            pending_restart: false,
        };
        let seen = Some(Ok(Arc::new(observation)));
        Observed { began: Timestamp(0), seen, health: Health::Good }
    }

    #[test]
    fn a_standby_whose_receiver_stopped_is_still_on_its_timeline() {
        let mut own = InstanceFacts { process: Process::Starting, ..InstanceFacts::default() };
        for (received, known) in [(1, 1), (3, 3), (1, 3), (4, 4)] {
            seen(true, received).apply(&mut own, false);
            assert_eq!(own.timeline, TimelineId(known));
        }
        seen(false, 5).apply(&mut own, false);
        assert_eq!(own.timeline, TimelineId(5));
        // Another server of this node, which may have been rewound.
        own.process = Process::Starting;
        seen(true, 4).apply(&mut own, false);
        assert_eq!(own.timeline, TimelineId(4));
    }
}
