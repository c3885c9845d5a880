//! Talks to the operator of a node that shall go on after a majority was lost for good.
//! In: the node's folder. Out: what may be lost; with `--accept-loss` the node goes on alone.
//! Not here: how (`node/recover.rs`).
//! Tested by: `tests/members`.

use crate::cli::Error;
use crate::cli::run::recover::Arguments;
use crate::cli::terminal::Terminal;
use crate::consensus::{self, StoreError};
use crate::node::recover::{self as node, Loss};
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use serde_json::json;

pub(super) async fn recover(arguments: Arguments, terminal: &mut Terminal) -> Result<(), Error> {
    let Arguments { dir, accept_loss } = arguments;
    let folder = dir.clone();
    let work = tokio::task::spawn_blocking(move || -> Result<Loss, node::Error> {
        let loss = node::look(&folder)?;
        if accept_loss {
            node::carry_out(&folder, &loss)?;
        }
        Ok(loss)
    });
    let loss = match work.await {
        Ok(Ok(loss)) => loss,
        Ok(Err(error)) => return Err(refused(&error).into()),
        Err(error) => {
            let what = "cannot recover";
            let advice = "look at the disk, and repeat it";
            return Err(Problem::caused_by(codes::UNEXPECTED, what, &error, advice).into());
        }
    };
    if terminal.wants_json() {
        return Ok(terminal.json(&as_json(&loss, accept_loss))?);
    }
    say(&loss, terminal)?;
    let (node, dir) = (&loss.node, dir.display());
    if accept_loss {
        terminal
            .line(format_args!("{node} is the cluster now, alone. Start its daemon, and then:"))?;
        terminal
            .line("  tandem explain SERVICE; tandem failover SERVICE --accept-loss, where the")?;
        terminal.line("  primary was lost; new nodes join with an empty folder (tandem token)")?;
    } else {
        terminal
            .line("nothing was changed. If the other nodes can come back, start them instead.")?;
        terminal.line(format_args!(
            "to go on without them, on this node only: tandem recover --dir {dir} --accept-loss"
        ))?;
    }
    Ok(())
}

fn say(loss: &Loss, terminal: &mut Terminal) -> Result<(), Error> {
    let Loss { node, recovered, lost, services, version, .. } = loss;
    let index = |index: Option<u64>| index.map_or("none".to_owned(), |index| index.to_string());
    let lost: Vec<&str> = lost.iter().map(|it| it.as_str()).collect();
    let voters: Vec<&str> = recovered.members_before.iter().map(|it| it.as_str()).collect();
    terminal.line(format_args!("cluster {}, as {node} knows it", recovered.cluster))?;
    terminal.line(format_args!("  members before: {}", voters.join(", ")))?;
    terminal.line(format_args!("  last entry here: {}", index(recovered.last_index)))?;
    terminal.line(format_args!("  known as agreed: {}", index(recovered.committed_index)))?;
    terminal.line(format_args!("given up: {}", lost.join(", ")))?;
    terminal.line("what may be lost:")?;
    terminal.line("  what was agreed after the last entry here, by the nodes that are given up")?;
    for (service, words) in services {
        terminal.line(format_args!("  {service}: {words}"))?;
    }
    terminal.line(format_args!(
        "configuration {version}: {node} alone, durability \"preferred\" where it was \"quorum\""
    ))?;
    Ok(())
}

fn as_json(loss: &Loss, done: bool) -> serde_json::Value {
    let Loss { node, recovered, lost, services, version, .. } = loss;
    let services: serde_json::Map<String, serde_json::Value> =
        services.iter().map(|(name, words)| (name.to_string(), json!(words))).collect();
    json!({
        "done": done,
        "node": node,
        "cluster": recovered.cluster,
        "members_before": recovered.members_before,
        "last_index": recovered.last_index,
        "committed_index": recovered.committed_index,
        "given_up": lost,
        "services": services,
        "config_version": version,
    })
}

fn refused(error: &node::Error) -> Problem {
    let runs =
        matches!(error, node::Error::Consensus(consensus::Error::Store(StoreError::InUse { .. })));
    let nothing = "cannot recover, nothing was changed";
    let (code, what, advice) = match error {
        _ if runs => (codes::BUSY, nothing, "stop it first: systemctl stop tandem"),
        // The last step: what is agreed was rewritten by then.
        node::Error::File { .. } => (
            codes::OPERATION_FAILED,
            "recovered, but not to the end",
            "make room or check the permissions, then repeat it",
        ),
        _ => (codes::NOT_RECOVERABLE, nothing, "see docs/operating/recovery.md"),
    };
    Problem::caused_by(code, what, error, advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::codes::Exit;

    #[test]
    fn what_changed_nothing_is_a_refusal() {
        for error in [
            node::Error::NotFounded,
            node::Error::NotAMember { node: "a".into() },
            node::Error::NotAlone { node: "a".into(), because: "acks".into() },
        ] {
            let problem = refused(&error);
            assert!(problem.what.contains("nothing was changed"), "{problem}");
            assert_eq!(problem.exit(), Exit::Refused, "{problem}");
        }
        let source = std::io::Error::other("full");
        let problem = refused(&node::Error::File { path: "/d".into(), source });
        assert!(!problem.what.contains("nothing was changed"), "{problem}");
        assert_eq!(problem.exit(), Exit::Failed);
    }
}
