//! Talks to the cluster as the operator does who adds a machine to it, and takes it away again.
//! In: the node, one to ask. Out: it is a member and runs; it is none, and its machine is empty.
//! Keeps: nothing is removed before its share is elsewhere; what was removed ends by itself.
//! The words are those of `docs/operating/install.md`.
//! Not here: when the node has its share (`steps.rs`), what that proves (`effect.rs`).
//! Tested by: below; the drill itself.

use super::super::clients::{Clients, Manner};
use super::super::faults::Shape;
use super::super::kit::SERVICE;
use super::super::verdict::guest_of;
use super::super::view;
use super::Stage;
use crate::dev::status::Status;
use crate::drill::Error;
use crate::drill::evidence::workload::Load;
use crate::drill::stage::LOOK;
use crate::telemetry::codes;
use std::time::Duration;
use tandem_core::ids::NodeId;
use tokio::time::{Instant, sleep, timeout};

impl Stage {
    /// Makes a machine a member; it is started with the file that is applied then.
    pub(super) async fn join(&self, via: &NodeId, node: &NodeId) -> Result<(), Error> {
        let dir = self.cluster.equip(node)?;
        let shape = Shape { added: true, ..Shape::default() };
        let token = self.operate(&self.authority(), &words(["token", node.as_str()])).await?;
        let path = self.kit.keep_token(&token)?;
        let (path, folder) = (path.display().to_string(), dir.display().to_string());
        let join = ["join", "--node", node.as_str(), "--dir", &folder, "--token-file", &path];
        self.tandem(&[], &words(join)).await?;
        self.write_config(&shape, &dir.join("tandem.toml"))?;
        self.cluster.restore_node(node)?;
        patiently(self.bounds.flow_max, || self.apply(via, &shape)).await?;
        self.members.send_modify(|members| members.push(node.clone()));
        Ok(())
    }

    /// A client at the door of a node that joined; none where the service has no doors.
    pub(in super::super) fn guest(&self, node: &NodeId, run: &str) -> Option<Clients> {
        let layout = self.cluster.layout();
        let door = layout.door_of(layout.place(node).ok()?, SERVICE)?;
        let load = Load { writers: 1, ..self.load.clone() };
        Some(Clients::start(&load, &[door], &guest_of(run), Manner::of(self.subject)))
    }

    /// Empties a node, removes it, and waits until nothing of it is left.
    pub(super) async fn leave(&self, via: &NodeId, node: &NodeId) -> Result<(), Error> {
        self.operate(via, &words(["drain", node.as_str()])).await?;
        let emptied = async {
            while !self.cluster.status(via).await.is_ok_and(|it| view::is_empty(&it, node)) {
                sleep(LOOK).await;
            }
        };
        timeout(self.bounds.flow_max, emptied).await.map_err(|_| Error::Command {
            words: format!("drain {node}"),
            because: format!("its share did not leave it within {:?}", self.bounds.flow_max),
        })?;
        // From here on its silence is no shortcoming.
        self.members.send_modify(|members| members.retain(|it| it != node));
        self.cluster.expect_end(node)?;
        patiently(self.bounds.flow_max, || self.remove(via, node)).await?;
        self.cluster.ended(node).await?;
        Ok(self.cluster.dismantle(node).await?)
    }

    async fn remove(&self, via: &NodeId, node: &NodeId) -> Result<(), Error> {
        self.operate(via, &words(["remove", node.as_str()])).await.map(drop)
    }

    /// Where what lets nodes in is kept: where the cluster began.
    fn authority(&self) -> NodeId {
        let first = self.cluster.layout().nodes.first();
        first.map_or_else(|| NodeId::new("a"), |place| place.node.clone())
    }

    /// Takes away what joined, however far that came.
    pub(super) async fn mend_members(&self) {
        let (node, via) = (self.kit.spare(), self.authority());
        // It may be a member though it is not asked any more, or was not yet.
        let named = |it: Status| it.nodes.iter().any(|known| known.name == node.as_str());
        let is_known = self.cluster.status(&via).await.is_ok_and(named);
        if (is_known || self.members.borrow().contains(&node))
            && let Err(error) = self.leave(&via, &node).await
        {
            tracing::warn!(%error, "a node that joined does not leave");
            // What runs of it ends below.
            let removed = patiently(self.bounds.flow_max, || self.remove(&via, &node)).await;
            if let Err(error) = removed {
                tracing::warn!(%error, "a node that joined is not removed");
            }
        }
        self.members.send_modify(|members| members.retain(|it| *it != node));
        if let Err(error) = self.cluster.dismantle(&node).await {
            tracing::warn!(%error, "a node that joined is still there");
        }
    }
}

/// What is refused until all have heard of the last change is asked for again, as the refusal
/// says.
async fn patiently<Done>(limit: Duration, ask: impl Fn() -> Done) -> Result<(), Error>
where
    Done: Future<Output = Result<(), Error>>,
{
    let deadline = Instant::now() + limit;
    loop {
        match ask().await {
            Err(error) if is_early(&error) && Instant::now() < deadline => sleep(LOOK).await,
            done => return done,
        }
    }
}

fn is_early(error: &Error) -> bool {
    error.to_string().contains(&codes::BUSY.to_string())
}

fn words<const COUNT: usize>(words: [&str; COUNT]) -> Vec<String> {
    words.map(str::to_owned).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn what_is_early_is_asked_again_and_nothing_else() {
        let refused = |code: String| Error::Command { words: "config apply".into(), because: code };
        let asked = Cell::new(0);
        let early = || {
            asked.set(asked.get() + 1);
            let times = asked.get();
            async move {
                if times < 3 { Err(refused(format!("error[{}]", codes::BUSY))) } else { Ok(()) }
            }
        };
        let limit = Duration::from_secs(60);
        patiently(limit, early).await.unwrap();
        assert_eq!(asked.get(), 3);
        patiently(limit, || async { Err(refused("error[TDM0602]".into())) }).await.unwrap_err();
        let late = patiently(Duration::ZERO, || async { Err(refused(codes::BUSY.to_string())) });
        late.await.unwrap_err();
    }
}
