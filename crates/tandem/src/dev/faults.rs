//! Talks to the processes and relays of a dev cluster: every way to break a node, and to mend it.
//! In: a node. Out: processes that are killed, stopped or started again; links that are cut.
//! Tested by: below, with stand-ins; the drill.

use super::daemon::Wanted;
use super::processes::{self, Process, Role};
use super::relay::Condition;
use super::{DevCluster, Error, NodePlace, disk};
use nix::sys::signal::Signal;
use std::time::Duration;
use tandem_core::ids::NodeId;
use tokio::time::{Instant, sleep, timeout};

/// SIGKILL and SIGSTOP act within milliseconds, unless a process is stuck in the kernel.
const SETTLE_MAX: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(2);
/// How long a daemon may take to end by itself before a restart kills it, as systemd does later.
const TERM_MAX: Duration = Duration::from_secs(30);
const CUT: Condition = Condition { cut: true, delay: Duration::ZERO };

impl DevCluster {
    /// Kills the daemon; it is started again as systemd would.
    ///
    /// # Errors
    /// When none runs.
    pub fn kill_daemon(&self, node: &NodeId) -> Result<(), Error> {
        self.signal_role(node, Role::Daemon, Signal::SIGKILL)
    }

    /// Stops the daemon in its tracks (SIGSTOP).
    ///
    /// # Errors
    /// When none runs.
    pub fn freeze_daemon(&self, node: &NodeId) -> Result<(), Error> {
        self.signal_role(node, Role::Daemon, Signal::SIGSTOP)
    }

    /// Lets a stopped daemon go on.
    ///
    /// # Errors
    /// When none runs.
    pub fn thaw_daemon(&self, node: &NodeId) -> Result<(), Error> {
        self.signal_role(node, Role::Daemon, Signal::SIGCONT)
    }

    /// Kills the first process of the instance, nothing else.
    ///
    /// # Errors
    /// When none runs.
    pub fn kill_postmaster(&self, node: &NodeId) -> Result<(), Error> {
        self.signal_role(node, Role::Postmaster, Signal::SIGKILL)
    }

    /// Stops the first process of the instance; sessions go on, new ones get no answer.
    ///
    /// # Errors
    /// When none runs.
    pub fn freeze_postmaster(&self, node: &NodeId) -> Result<(), Error> {
        self.signal_role(node, Role::Postmaster, Signal::SIGSTOP)
    }

    /// Lets a stopped instance go on; one that was killed meanwhile is fine.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn thaw_postmaster(&self, node: &NodeId) -> Result<(), Error> {
        match self.signal_role(node, Role::Postmaster, Signal::SIGCONT) {
            Err(Error::NoProcess { .. }) => Ok(()),
            result => result,
        }
    }

    /// Kills the first process of a node's commands, nothing else.
    ///
    /// # Errors
    /// When none runs.
    pub fn kill_command(&self, node: &NodeId) -> Result<(), Error> {
        self.signal_role(node, Role::Command, Signal::SIGKILL)
    }

    /// Stops the first process of a node's commands in its tracks.
    ///
    /// # Errors
    /// When none runs.
    pub fn freeze_command(&self, node: &NodeId) -> Result<(), Error> {
        self.signal_role(node, Role::Command, Signal::SIGSTOP)
    }

    /// Lets stopped commands go on; one that was killed meanwhile is fine.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn thaw_command(&self, node: &NodeId) -> Result<(), Error> {
        match self.signal_role(node, Role::Command, Signal::SIGCONT) {
            Err(Error::NoProcess { .. }) => Ok(()),
            result => result,
        }
    }

    /// Kills every process of a node; it stays down until `restore_node`.
    ///
    /// # Errors
    /// When a process survives that.
    pub async fn kill_node(&self, node: &NodeId) -> Result<(), Error> {
        self.want(node, Wanted::Down)?;
        // What was found once stays on the list: a session whose parents are dead may be
        // unrecognisable to someone without the right to read its working folder.
        let mut known: Vec<Process> = Vec::new();
        self.until_settled(node, |found| {
            let new: Vec<_> = found.iter().filter(|process| !known.contains(process)).collect();
            known.extend(new.into_iter().cloned());
            known.retain(Process::is_alive);
            for process in &known {
                self.announce(node, process);
                processes::signal(process.pid, Signal::SIGKILL)?;
            }
            Ok(known.iter().map(|process| process.pid).collect())
        })
        .await
    }

    /// Starts a node that was killed, as a boot would.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn restore_node(&self, node: &NodeId) -> Result<(), Error> {
        self.want(node, Wanted::Up)
    }

    /// Stops every process of a node, as a paused virtual machine.
    ///
    /// # Errors
    /// When a process goes on.
    pub async fn freeze_node(&self, node: &NodeId) -> Result<(), Error> {
        self.until_settled(node, |found| {
            let running: Vec<i32> = found
                .iter()
                .filter(|process| !process.stopped)
                .map(|process| process.pid)
                .collect();
            for pid in &running {
                processes::signal(*pid, Signal::SIGSTOP)?;
            }
            Ok(running)
        })
        .await
    }

    /// Lets every process of a node go on.
    ///
    /// # Errors
    /// When a process stays stopped.
    pub async fn thaw_node(&self, node: &NodeId) -> Result<(), Error> {
        self.until_settled(node, |found| {
            let stopped: Vec<i32> =
                found.iter().filter(|process| process.stopped).map(|process| process.pid).collect();
            for pid in &stopped {
                processes::signal(*pid, Signal::SIGCONT)?;
            }
            Ok(stopped)
        })
        .await
    }

    /// Cuts a node off from all others. Clients on the node itself still reach it.
    pub fn cut_node(&self, node: &NodeId) {
        self.mesh.set_node(node, CUT);
    }

    /// Ends `cut_node`.
    pub fn heal_node(&self, node: &NodeId) {
        self.mesh.set_node(node, Condition::default());
    }

    /// Cuts two nodes off from each other, both ways.
    pub fn cut_link(&self, a: &NodeId, b: &NodeId) {
        self.mesh.set_link(a, b, CUT);
    }

    /// Changes the link between two nodes, both ways.
    pub fn set_link(&self, a: &NodeId, b: &NodeId, condition: Condition) {
        self.mesh.set_link(a, b, condition);
    }

    /// Changes what one node dials of another, leaving the connections the other way alone.
    pub fn set_way(&self, dialer: &NodeId, dialed: &NodeId, condition: Condition) {
        self.mesh.set_way(dialer, dialed, condition);
    }

    /// Heals every link.
    pub fn heal_all(&self) {
        self.mesh.heal();
    }

    /// Ends the daemon in peace and starts it again; PostgreSQL runs on.
    ///
    /// # Errors
    /// When none runs.
    pub async fn restart_daemon(&self, node: &NodeId) -> Result<(), Error> {
        let Some(daemon) = self.daemons.get(node) else {
            return Err(Error::UnknownNode { node: node.clone() });
        };
        let old = daemon.pid();
        self.signal_role(node, Role::Daemon, Signal::SIGTERM)?;
        if timeout(TERM_MAX, daemon.restarted(old)).await.is_err() {
            tracing::warn!(%node, seconds = TERM_MAX.as_secs(), "daemon did not end; killed");
            self.signal_role(node, Role::Daemon, Signal::SIGKILL)?;
        }
        Ok(())
    }

    /// Fills the small disk of a node's services. Without one there is nothing it may fill.
    ///
    /// # Errors
    /// When writing fails for another reason than space.
    pub async fn fill_disk(&self, node: &NodeId) -> Result<(), Error> {
        let folder = self.layout().place(node)?.dir.join("services");
        let path = folder.clone();
        tokio::task::spawn_blocking(move || disk::fill(&folder))
            .await
            .map_err(|error| Error::Folder { path, source: error.into() })?
            .map(drop)
    }

    /// Makes room again.
    ///
    /// # Errors
    /// When the filling cannot be removed.
    pub fn free_disk(&self, node: &NodeId) -> Result<(), Error> {
        disk::free(&self.layout().place(node)?.dir.join("services"))
    }

    /// Mends everything: for the end of a run that went wrong.
    pub async fn mend(&self) {
        self.heal_all();
        for NodePlace { node, .. } in &self.layout().nodes {
            let _ = self.free_disk(node);
            let _ = self.thaw_node(node).await;
            let _ = self.restore_node(node);
        }
    }

    pub(super) fn want(&self, node: &NodeId, wanted: Wanted) -> Result<(), Error> {
        let Some(daemon) = self.daemons.get(node) else {
            return Err(Error::UnknownNode { node: node.clone() });
        };
        daemon.want(wanted);
        Ok(())
    }

    fn signal_role(&self, node: &NodeId, role: Role, signal: Signal) -> Result<(), Error> {
        let what = match role {
            Role::Daemon => "daemon",
            Role::Keeper => "keeper",
            Role::Postmaster => "postmaster",
            Role::Command => "command",
            Role::Other => "process",
        };
        let dir = &self.layout().place(node)?.dir;
        let mut found = processes::of_node(dir);
        found.retain(|process| process.role == role);
        if found.is_empty() {
            return Err(Error::NoProcess { node: node.clone(), what });
        }
        found.iter().try_for_each(|process| {
            if matches!(signal, Signal::SIGKILL | Signal::SIGTERM) {
                self.announce(node, process);
            }
            processes::signal(process.pid, signal)
        })
    }

    /// A daemon that is ended here did not die by itself.
    fn announce(&self, node: &NodeId, process: &Process) {
        if let (Role::Daemon, Some(daemon)) = (process.role, self.daemons.get(node)) {
            daemon.mean(process.pid);
        }
    }

    /// Acts on a node's processes until `act` names none that is left to act on, twice in a row:
    /// one that is being started may hide from a single look.
    async fn until_settled(
        &self,
        node: &NodeId,
        mut act: impl FnMut(&[Process]) -> Result<Vec<i32>, Error>,
    ) -> Result<(), Error> {
        let dir = self.layout().place(node)?.dir.clone();
        let deadline = Instant::now() + SETTLE_MAX;
        let mut clean_looks = 0;
        while clean_looks < 2 {
            let pids = act(&processes::of_node(&dir))?;
            clean_looks = if pids.is_empty() { clean_looks + 1 } else { 0 };
            if Instant::now() > deadline {
                let (node, seconds) = (node.clone(), SETTLE_MAX.as_secs());
                return Err(Error::StillRunning { node, seconds, pids });
            }
            sleep(POLL).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::cluster::tests::stand_in;
    use super::*;

    fn states(cluster: &DevCluster, node: &NodeId) -> Vec<bool> {
        let dir = &cluster.layout().place(node).unwrap().dir;
        processes::of_node(dir).iter().map(|process| process.stopped).collect()
    }

    #[tokio::test]
    async fn nodes_are_killed_frozen_and_restored() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = stand_in(2, &folder.path().join("node")).await;
        let [a, b] = ["a", "b"].map(NodeId::new);
        let old = cluster.daemons[&a].pid();
        cluster.kill_daemon(&a).unwrap();
        timeout(SETTLE_MAX, cluster.daemons[&a].restarted(old)).await.unwrap();

        cluster.freeze_node(&b).await.unwrap();
        assert!(states(&cluster, &b).iter().all(|stopped| *stopped));
        cluster.thaw_node(&b).await.unwrap();
        assert!(states(&cluster, &b).iter().all(|stopped| !*stopped));

        cluster.kill_node(&a).await.unwrap();
        assert!(states(&cluster, &a).is_empty() && !states(&cluster, &b).is_empty());
        cluster.restore_node(&a).unwrap();
        timeout(SETTLE_MAX, cluster.daemons[&a].restarted(None)).await.unwrap();

        let old = cluster.daemons[&b].pid();
        cluster.restart_daemon(&b).await.unwrap();
        assert_ne!(cluster.daemons[&b].pid(), old);
        assert!(cluster.deaths().iter().all(|(_, deaths)| *deaths == 0), "all of that was meant");
        processes::signal(cluster.daemons[&b].pid().unwrap(), Signal::SIGKILL).unwrap();
        timeout(SETTLE_MAX, async {
            while !cluster.deaths().contains(&(b.clone(), 1)) {
                sleep(POLL).await;
            }
        })
        .await
        .unwrap();
        assert!(cluster.last_death(&b).contains("signal: 9"), "{}", cluster.last_death(&b));
        assert!(matches!(cluster.kill_postmaster(&b), Err(Error::NoProcess { .. })));
        assert!(matches!(cluster.kill_daemon(&NodeId::new("y")), Err(Error::UnknownNode { .. })));
        cluster.stop().await;
    }
}
