//! Talks to the member that made a token: makes this machine a node of its cluster.
//! In: the token, from a file, stdin or the environment. Out: the node's identity, and the
//! configuration to start it with.
//! Not here: the protocol (`identity`).
//! Tested by: `tests/members`.

use crate::api::operations::Secret;
use crate::cli::Error;
use crate::cli::entry::failed;
use crate::cli::run::join::Arguments;
use crate::cli::terminal::Terminal;
use crate::config::Config;
use crate::identity::{self, JoinToken};
use crate::node::problem;
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use serde_json::json;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use tandem_core::ids::NodeId;

/// A token has some hundred characters.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

pub(super) async fn join(arguments: Arguments, terminal: &mut Terminal) -> Result<(), Error> {
    let Arguments { node, dir, to, token, token_file } = arguments;
    let node = NodeId::new(node);
    let text = read_token(token, token_file)?;
    let token: JoinToken =
        text.reveal().parse().map_err(|flaw: identity::TokenFlaw| not_joined(&flaw.to_string()))?;
    if *token.node() != node {
        let because = format!("the token is for node {}", token.node());
        return Err(not_joined(&because).into());
    }
    let token = match to {
        Some(address) => token.through(address),
        None => token,
    };
    let joined = identity::join(&token, &dir)
        .await
        .map_err(|error| Error::Problem(problem::of_identity(&error)))?;
    let file = keep(&dir, &joined.configuration)?;
    let named = Config::parse(&joined.configuration, "the agreed configuration")
        .is_ok_and(|config| config.nodes.contains_key(&node));
    if terminal.wants_json() {
        let cluster = joined.identity.cluster().as_str();
        let done = json!({
            "cluster": cluster, "node": node, "dir": dir, "config": file, "configured": named,
        });
        return Ok(terminal.json(&done)?);
    }
    let (cluster, dir) = (joined.identity.cluster(), dir.display());
    terminal.line(format_args!("joined cluster {cluster} as node {node}, in {dir}"))?;
    if named {
        let start = format!("tandem node --config {file} --node {node} --dir {dir}");
        terminal.line(format_args!("start it: {start}"))?;
    } else {
        terminal.line(format_args!(
            "the agreed configuration does not name {node} yet: add [nodes.{node}] to {file}, \
             start the node with it, then on a member: tandem config apply FILE, with the same file"
        ))?;
    }
    Ok(())
}

fn read_token(given: Option<Secret>, file: Option<PathBuf>) -> Result<Secret, Problem> {
    let path = match (given, file) {
        (Some(token), _) => return Ok(token),
        (None, Some(path)) => path,
        (None, None) => return Err(not_joined("no token was given")),
    };
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().take(TOKEN_BYTES_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(&path)
            .and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut text))
    };
    read.map_err(|error| {
        let what = format!("cannot read the token in {}", path.display());
        Problem::caused_by(codes::CANNOT_READ_FILE, what, &error, "check the path")
    })?;
    Ok(Secret::new(text))
}

/// The configuration that the cluster has, where the node finds it when it starts.
fn keep(dir: &Path, text: &str) -> Result<String, Error> {
    let path = dir.join("tandem.toml");
    std::fs::write(&path, text)
        .map_err(|error| failed("write the node's configuration", &error))?;
    Ok(path.display().to_string())
}

fn not_joined(because: &str) -> Problem {
    let advice = "make a new token on a member: tandem token NODE";
    Problem::new(codes::ARGUMENT, "cannot join the cluster", because, advice)
}
