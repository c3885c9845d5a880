//! Talks to a machine that joins a dev cluster while that runs, and to one that left it.
//! In: a node that may join (`DevConfig::spares`). Out: its folder and links; its end, waited for.
//! States: nothing there → equipped → (it joined) started → (it was removed) gone → nothing there.
//! Not here: the commands by which it joins and is removed, which are an operator's.
//! Tested by: below, with a stand-in; the drill.

use super::super::daemon::Wanted;
use super::super::{Error, folders, processes};
use super::{DevCluster, write_routes};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use tandem_core::ids::NodeId;
use tokio::time::{Instant, sleep, timeout};

/// For a daemon that was removed to end its copies and itself.
const ENDS_MAX: Duration = Duration::from_secs(20);
/// For what a daemon leaves to its keepers, once it is gone.
const SETTLE_MAX: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl DevCluster {
    /// Gives a node that may join what its machine has before: a folder, and links to the others.
    ///
    /// # Errors
    /// When there is no such node, or its folder cannot be written.
    pub fn equip(&self, node: &NodeId) -> Result<PathBuf, Error> {
        let place = self.layout().place(node)?;
        folders::make(&place.dir.join("services"))?;
        write_routes(&self.mesh, place)?;
        Ok(place.dir.clone())
    }

    /// Says that a node is not to be started again once it ends.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn expect_end(&self, node: &NodeId) -> Result<(), Error> {
        self.want(node, Wanted::Down)
    }

    /// Waits until a node that was removed ended by itself, with everything that it had started.
    ///
    /// # Errors
    /// When there is no such node, it ended otherwise than in peace, or something of it goes on.
    pub async fn ended(&self, node: &NodeId) -> Result<(), Error> {
        let dir = self.layout().place(node)?.dir.clone();
        let left = || processes::of_node(&dir).iter().map(|it| it.pid).collect::<Vec<i32>>();
        if let Some(daemon) = self.daemons.get(node)
            && timeout(ENDS_MAX, daemon.gone()).await.is_err()
        {
            let (node, seconds) = (node.clone(), ENDS_MAX.as_secs());
            return Err(Error::StillRunning { node, seconds, pids: left() });
        }
        if let Some(daemon) = self.daemons.get(node)
            && daemon.ended_well() == Some(false)
        {
            return Err(Error::EndedBadly { node: node.clone(), how: daemon.last_end() });
        }
        let deadline = Instant::now() + SETTLE_MAX;
        while !left().is_empty() {
            if Instant::now() > deadline {
                let (node, seconds) = (node.clone(), SETTLE_MAX.as_secs());
                return Err(Error::StillRunning { node, seconds, pids: left() });
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Ends whatever is left of a node that may join, and empties its machine.
    ///
    /// # Errors
    /// When a process survives that, or the folder does.
    pub async fn dismantle(&self, node: &NodeId) -> Result<(), Error> {
        self.kill_node(node).await?;
        let path = self.layout().place(node)?.dir.clone();
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::Folder { path, source })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::stand_in;
    use super::*;
    use nix::sys::signal::Signal;

    #[tokio::test]
    async fn a_machine_comes_and_goes_and_comes_again() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = stand_in(2, &folder.path().join("node")).await;
        let z = NodeId::new("z");
        for in_peace in [true, false] {
            let dir = cluster.equip(&z).unwrap();
            let routes = fs::read_to_string(dir.join("routes.toml")).unwrap();
            assert!(routes.contains("[a]") && routes.contains("[b]"), "{routes}");
            cluster.restore_node(&z).unwrap();
            timeout(ENDS_MAX, cluster.daemons[&z].restarted(None)).await.unwrap();
            cluster.expect_end(&z).unwrap();
            // The stand-in, a shell, ends once what it started does.
            let of_node = || processes::of_node(&dir);
            timeout(ENDS_MAX, async {
                while of_node().len() < 2 {
                    sleep(LOOK_AGAIN).await;
                }
            })
            .await
            .unwrap();
            for process in of_node() {
                if !in_peace || process.role != processes::Role::Daemon {
                    processes::signal(process.pid, Signal::SIGKILL).unwrap();
                }
            }
            match cluster.ended(&z).await {
                Ok(()) => assert!(in_peace, "it was killed"),
                Err(error) => assert!(!in_peace && error.to_string().contains("signal: 9")),
            }
            let deaths = usize::from(!in_peace);
            assert!(cluster.deaths().contains(&(z.clone(), deaths)), "{:?}", cluster.deaths());
            cluster.dismantle(&z).await.unwrap();
            assert!(!dir.exists());
        }
        cluster.stop().await;
    }
}
