//! Keeps nothing running that no configuration names any more: its service was taken out while the
//! daemon was away, and a copy that needs no lease would go on with its keeper for ever; or its
//! node was removed, and keepers would stay that have nothing to keep.
//! In: the node's folder. Out: nothing but ended copies.
//! Not here: services that go while the daemon runs (`copies.rs`).
//! Tested by: below, `tests/copies`, the drill's `scale` and `daemon-kill`.

use super::super::Ground;
use crate::config::Config;
use crate::fence::client::{Keeper, KeeperEvent};
use crate::fence::protocol::{Signal, State as Held};
use crate::runtime::supervisor::{Supervisor, TaskKind};
use crate::service::command::State;
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
pub(super) async fn end(ground: &Ground) {
    let Ok(folders) = std::fs::read_dir(ground.args.dir.join("services")) else { return };
    for folder in folders.flatten() {
        let name = folder.file_name();
        let Some(service) = name.to_str().map(ServiceId::new) else { continue };
        if is_named(&ground.config, &ground.args.node, &service) || !was_run(&folder.path()) {
            continue;
        }
        let Some(own) = ground.folders.take(&service) else { continue };
        let (run_dir, tasks) = (run_dir(&folder.path()), ground.supervisor.clone());
        ground.supervisor.spawn("copy that is left over", TaskKind::Session, async move {
            let stop = tasks.stopping();
            // Nobody else has it before nothing is left.
            while !ends(&service, &run_dir, &tasks).await {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(AGAIN) => {}
                }
            }
            drop(own);
        });
    }
}

/// Ends what a keeper holds there; whether nothing is left, as far as anybody knows.
async fn ends(service: &ServiceId, run_dir: &Path, tasks: &Supervisor) -> bool {
    match Keeper::attach(run_dir, tasks).await {
        Ok(None) => true,
        Ok(Some((keeper, events))) => {
            tracing::warn!(%service, "the configuration does not have it any more: its copy ends");
            finish(keeper, events).await
        }
        Err(error) => {
            tracing::warn!(%service, %error, "it is not known whether a copy of it is left");
            false
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
    let command = config.commands.get(service);
    // One that runs alone now has a driver that ends what it finds.
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

/// Whether it has ended.
async fn finish(keeper: Keeper, mut events: mpsc::Receiver<KeeperEvent>) -> bool {
    let ended = async {
        while let Some(event) = events.recv().await {
            match event {
                KeeperEvent::Status(status) if status.state == Held::Idle => return,
                KeeperEvent::Status(_) => _ = keeper.signal(Signal::Smart).await,
                KeeperEvent::Exited(_) | KeeperEvent::KeeperGone => return,
                KeeperEvent::Started { .. } | KeeperEvent::Stuck { .. } => {}
            }
        }
    };
    let mut has_ended = timeout(STOP, ended).await.is_ok();
    if !has_ended {
        let _ = keeper.kill().await;
        let gone = async {
            while let Some(event) = events.recv().await {
                if let KeeperEvent::Exited(_) | KeeperEvent::KeeperGone = event {
                    return;
                }
            }
        };
        has_ended = timeout(STOP, gone).await.is_ok();
    }
    // Where it still holds something it refuses, and goes by itself once that has ended.
    let _ = keeper.release().await;
    has_ended
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
        assert!(is_named("work@a") && is_named("work") && is_named("web"));
        assert!(!is_named("work@b"), "another node's");
        assert!(!is_named("web@a"), "it was divided, and is not any more");
        assert!(!is_named("gone@a") && !is_named("gone"));
    }
}
