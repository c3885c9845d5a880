//! Keeps nothing running that no configuration names any more: its service was taken out while the
//! daemon was away, and a copy that needs no lease would go on with its keeper for ever; or its
//! node was removed, and keepers would stay that have nothing to keep.
//! In: the node's folder. Out: nothing but ended copies.
//! Not here: services that go while the daemon runs (`copies.rs`).
//! Tested by: below, `tests/copies`, the drill's `scale` and `daemon-kill`.

use super::super::{Error, Ground};
use super::folders::Folder;
use crate::config::Config;
use crate::fence::client::{Keeper, KeeperEvent};
use crate::fence::protocol::{Signal, State as Held};
use crate::runtime::supervisor::{Supervisor, TaskKind};
use crate::service::command::State;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tandem_core::ids::{NodeId, ServiceId};
use tandem_core::spec::Seat;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// How long one may take to end; what its owner allowed it is not known any more.
const STOP: Duration = Duration::from_secs(10);
/// A keeper that does not answer is asked again after this.
const AGAIN: Duration = Duration::from_secs(2);
/// Connections end at once.
const RELEASED: Duration = Duration::from_secs(1);

/// Ends each, beside everything else.
///
/// # Errors
/// What was run here is not known.
pub(super) fn end(ground: &Ground) -> Result<(), Error> {
    let path = ground.args.dir.join("services");
    let failed = |source: io::Error| Error::File { path: path.clone(), source };
    let folders = match std::fs::read_dir(&path) {
        Ok(folders) => folders,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let exe = std::env::current_exe()
        .map_err(|source| Error::File { path: "the running program".into(), source })?;
    for folder in folders {
        let folder = folder.map_err(failed)?;
        let name = folder.file_name();
        let Some(service) = name.to_str().map(ServiceId::new) else { continue };
        if is_named(&ground.config, &ground.args.node, &service) || !was_run(&folder.path()) {
            continue;
        }
        let Some(own) = ground.folders.take(&service) else { continue };
        let left = Left {
            service,
            run_dir: run_dir(&folder.path()),
            exe: exe.clone(),
            tasks: ground.supervisor.clone(),
        };
        ground.supervisor.spawn("copy that is left over", TaskKind::Session, left.run(own));
    }
    Ok(())
}

/// What may be left of one service.
struct Left {
    service: ServiceId,
    run_dir: PathBuf,
    exe: PathBuf,
    tasks: Supervisor,
}

impl Left {
    /// Nobody else has its folder before nothing is left.
    async fn run(self, folder: Folder) {
        let stop = self.tasks.stopping();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                has_ended = self.ends() => if has_ended { return folder.release() },
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep(AGAIN) => {}
            }
        }
    }

    /// Ends what its keeper holds; whether that is known to be nothing. Where the keeper is gone,
    /// the next one ends what that left.
    async fn ends(&self) -> bool {
        let service = &self.service;
        match Keeper::attach_or_spawn(&self.run_dir, &self.exe, &self.tasks).await {
            Ok((keeper, events)) => {
                tracing::info!(%service, "the configuration does not have it any more: it ends");
                finish(keeper, events).await
            }
            Err(error) => {
                tracing::warn!(%service, %error, "it is not known whether a copy of it is left");
                false
            }
        }
    }
}

/// Where a node was removed: sends the keepers home of what has ended. One that still holds
/// something refuses, and goes by itself once that has ended.
pub(in crate::node) async fn release(dir: &Path) {
    let Ok(folders) = std::fs::read_dir(dir.join("services")) else { return };
    let tasks = Supervisor::new();
    for folder in folders.flatten() {
        let attached = Keeper::attach(&run_dir(&folder.path()), &tasks).await;
        if let Ok(Some((keeper, _events))) = attached
            && let Err(error) = keeper.release().await
        {
            tracing::warn!(folder = %folder.path().display(), %error, "a keeper stays");
        }
    }
    tasks.stop(RELEASED).await;
}

fn is_named(config: &Config, me: &NodeId, service: &ServiceId) -> bool {
    // What is divided runs under the name of this node's seat.
    let of_seat = Seat::named(service).filter(|seat| seat.node == *me);
    let is_seat = of_seat.and_then(|seat| config.commands.get(&seat.of)?.partitions.as_ref());
    // One that runs alone now has a driver that ends what it finds.
    let command = config.commands.get(service).filter(|command| command.partitions.is_none());
    is_seat.is_some() || command.is_some() || config.services.contains_key(service)
}

/// Whatever was run here has a recipe; what ran under a lease has ended by itself.
fn was_run(dir: &Path) -> bool {
    // What cannot be read may have been.
    State::load(dir).map_or(true, |state| state.recipe != 0)
}

fn run_dir(dir: &Path) -> PathBuf {
    dir.join("run")
}

/// Whether its keeper says that nothing is left.
async fn finish(keeper: Keeper, mut events: mpsc::Receiver<KeeperEvent>) -> bool {
    let mut has_ended = timeout(STOP, is_over(&mut events, Some(&keeper))).await;
    if has_ended.is_err() {
        let _ = keeper.kill().await;
        has_ended = timeout(STOP, is_over(&mut events, None)).await;
    }
    // Where it still holds something it refuses, and goes by itself once that has ended.
    let _ = keeper.release().await;
    has_ended.unwrap_or(false)
}

/// Waits until nothing runs, or the keeper is gone: then that is not known. Whatever it holds is
/// asked to end by whom it can be asked.
async fn is_over(events: &mut mpsc::Receiver<KeeperEvent>, asks: Option<&Keeper>) -> bool {
    while let Some(event) = events.recv().await {
        match event {
            KeeperEvent::Status(status) if status.state == Held::Idle => return true,
            KeeperEvent::Exited(_) => return true,
            KeeperEvent::KeeperGone => return false,
            KeeperEvent::Status(_) => {
                if let Some(keeper) = asks {
                    let _ = keeper.signal(Signal::Smart).await;
                }
            }
            KeeperEvent::Started { .. } | KeeperEvent::Stuck { .. } => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_starts_again_leaves_its_copy_of_divided_work_alone() {
        let text = "cluster = \"t\"\n[nodes.a]\naddress = \"192.0.2.1:7400\"\n\
             [services.work]\nreplication = \"none\"\nclustering = \"active-active\"\n\
             partitions = 4\nkind = \"command\"\nport = 7490\ncommand = [\"/bin/work\"]\n\
             [services.web]\nreplication = \"none\"\nclustering = \"active-passive\"\n\
             kind = \"command\"\nport = 7491\ncommand = [\"/bin/web\"]\n";
        let config = Config::parse(text, "t").unwrap_or_else(|found| panic!("{found:?}"));
        let is_named = |name: &str| is_named(&config, &"a".into(), &name.into());
        assert!(is_named("work@a") && is_named("web"));
        assert!(!is_named("work"), "it was not divided then");
        assert!(!is_named("work@b"), "another node's");
        assert!(!is_named("web@a"), "it was divided, and is not any more");
        assert!(!is_named("gone@a") && !is_named("gone"));
    }
}
