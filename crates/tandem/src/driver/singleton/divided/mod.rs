//! Carries out that a program of its owner's hears of each change of a copy's partitions.
//! In: what the copy's file says. Out: runs of the hook, one at a time, for the newest state.
//! States: (a change) Runs → (its end; another change meanwhile) Runs …, else Idle.
//! Keeps: H50 the hook has a limit, and is killed whole past it. INV-13: nothing waits for it, so a
//! hook that hangs delays no release; what is released only the process itself says.
//! Full: states that come while it runs are not kept, the last one is told once it has ended.
//! Not here: what a copy owns (`driver/seats.rs`), the process of the hook (`fence/program.rs`).
//! Tested by: `tests/divided.rs` beside it, `tests/partitions`.

use super::SingletonDriver;
use super::acting::Finished;
use crate::driver::seats::Own;
use crate::fence::program;
use crate::runtime::supervisor::TaskKind;
use crate::telemetry::event_kind::EventKind;
use tokio::sync::watch;

/// How far it was told.
#[derive(Debug, Default)]
pub(super) struct Hook {
    /// It is being told.
    runs: bool,
    /// The state that it was told last; a daemon that was restarted tells the present one again.
    version: Option<u64>,
}

/// Ready once a copy was told something else; never where no work is divided.
pub(super) async fn told(divided: &mut Option<watch::Receiver<Option<Own>>>) {
    if let Some(told) = divided
        && told.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

impl SingletonDriver {
    /// Runs the hook for what was told last, unless it runs already or was told that.
    pub(super) fn tell_of_partitions(&mut self) {
        let words = self.it.config.on_partitions.clone();
        let told = self.it.divided.as_ref().and_then(|told| told.borrow().clone());
        let Some(own) = told.filter(|_| !words.is_empty() && !self.hook.runs) else { return };
        if self.hook.version == Some(own.version) || self.awaits_user() {
            return;
        }
        self.hook = Hook { runs: true, version: Some(own.version) };
        self.output.begin();
        let program = self.program_told(&words, environment(&own));
        let (limit, sender) = (self.it.config.hook_max, self.finished.0.clone());
        let (version, stop) = (own.version, self.it.supervisor.stopping());
        self.it.supervisor.spawn("hook of partitions", TaskKind::Session, async move {
            let answer = program.run(limit, &stop).await;
            let _ = sender.send(Finished::ToldOfPartitions { version, answer }).await;
        });
    }

    pub(super) fn on_told_of_partitions(
        &mut self,
        version: u64,
        answer: Result<(), program::Error>,
    ) {
        self.hook.runs = false;
        // Its last words.
        self.output.begin();
        if matches!(answer, Err(program::Error::Cancelled { .. })) {
            return;
        }
        self.own.hook_failed = answer.is_err();
        if let Err(error) = answer {
            let message = format!("on_partitions failed, told of version {version}: {error}");
            self.tell(EventKind::HookFailed, message);
        }
    }
}

/// What the hook is told besides what every program of the copy is.
pub(super) fn environment(own: &Own) -> [(String, String); 3] {
    let ids = |is_releasing: bool| {
        let its = own.partitions.iter().filter(|it| it.releasing.is_some() == is_releasing);
        its.map(|it| it.partition.to_string()).collect::<Vec<_>>().join(" ")
    };
    [
        ("TANDEM_OWNED".to_owned(), ids(false)),
        ("TANDEM_RELEASING".to_owned(), ids(true)),
        ("TANDEM_VERSION".to_owned(), own.version.to_string()),
    ]
}
