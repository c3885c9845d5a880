//! Talks to a running node to have something done: one file per verb.
//! In: a service or a node. Out: what came of it, in words or as JSON.
//! Tested by: `cli/tests/operate.rs`.

pub mod drain;
pub mod failover;
pub mod pause;
pub mod reinit;
pub mod reload;
pub mod remove;
pub mod restart;
pub mod resume;
pub mod switchover;
pub mod token;
pub mod undrain;

use crate::api::operations::Outcome;
use crate::api::status::Status;
use crate::api::verbs::NothingMore;
use crate::cli::Error;
use crate::cli::client::{Client, segment};
use crate::cli::terminal::Terminal;
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use clap::Args;
use hyper::Method;
use serde::Serialize;
use serde_json::Value;

/// Which service; may be left out where there is only one.
#[derive(Clone, Debug, Args)]
pub struct OfService {
    /// The service; may be left out where there is only one
    #[arg(value_name = "SERVICE")]
    pub service: Option<String>,
}

impl OfService {
    /// Its name, asked of the node where it was left out.
    async fn name(&self, client: &Client) -> Result<String, Problem> {
        if let Some(name) = &self.service {
            return Ok(name.clone());
        }
        let status = client.read::<Status>("/v1/status").await?;
        let names: Vec<&str> = status.services.iter().map(|of| of.name.as_str()).collect();
        match names.as_slice() {
            [only] => Ok((*only).to_owned()),
            [] => Err(which("Tandem runs no service here", "tandem config apply FILE")),
            many => Err(which(
                &format!("the cluster has {}", many.join(", ")),
                "name the service after the command",
            )),
        }
    }

    /// Has a verb carried out on it.
    async fn operate(
        &self,
        verb: Verb<'_, impl Serialize>,
        client: &Client,
        terminal: &mut Terminal,
    ) -> Result<(), Error> {
        let name = self.name(client).await?;
        let path = format!("/v1/services/{}/{}", segment(&name), verb.name);
        let outcome = client.operate(verb.method, &path, &verb.body).await?;
        show(&outcome, terminal)
    }
}

/// What to ask for.
struct Verb<'a, B> {
    method: Method,
    name: &'a str,
    body: B,
}

impl<'a, B> Verb<'a, B> {
    const fn post(name: &'a str, body: B) -> Self {
        Self { method: Method::POST, name, body }
    }
}

fn which(because: &str, try_: &str) -> Problem {
    Problem::new(codes::ARGUMENT, "cannot tell which service is meant", because, try_)
}

/// Has a verb carried out on a node.
async fn operate_node(
    verb: Verb<'_, impl Serialize>,
    node: &str,
    client: &Client,
    terminal: &mut Terminal,
) -> Result<(), Error> {
    let node = segment(node);
    let name = verb.name;
    let path = if name.is_empty() {
        format!("/v1/nodes/{node}")
    } else {
        format!("/v1/nodes/{node}/{name}")
    };
    let outcome = client.operate(verb.method, &path, &verb.body).await?;
    show(&outcome, terminal)
}

/// What is emptied or used again: a node, or one endpoint of a service.
#[derive(Debug, Args)]
pub struct Emptied {
    /// Which node
    #[arg(value_name = "NODE", required_unless_present = "endpoint")]
    #[arg(conflicts_with_all = ["service", "endpoint"])]
    pub node: Option<String>,
    /// The service of an endpoint that something else runs
    #[arg(long, value_name = "SERVICE", requires = "endpoint")]
    pub service: Option<String>,
    /// The endpoint, as it is written in the configuration
    #[arg(long, value_name = "HOST:PORT", requires = "service")]
    pub endpoint: Option<String>,
}

impl Emptied {
    async fn operate(
        &self,
        verb: &'static str,
        client: &Client,
        terminal: &mut Terminal,
    ) -> Result<(), Error> {
        let (Some(service), Some(endpoint)) = (&self.service, &self.endpoint) else {
            let node = self.node.as_deref().unwrap_or_default();
            return operate_node(Verb::post(verb, NothingMore {}), node, client, terminal).await;
        };
        let (service, endpoint) = (segment(service), segment(endpoint));
        let path = format!("/v1/services/{service}/upstreams/{endpoint}/{verb}");
        let outcome = client.operate(Method::POST, &path, &NothingMore {}).await?;
        show(&outcome, terminal)
    }
}

/// Fields whose values are sentences.
const SENTENCES: [&str; 4] = ["brings", "changes", "waits", "warnings"];

/// Shows what came of a verb.
pub(crate) fn show(outcome: &Outcome, terminal: &mut Terminal) -> Result<(), Error> {
    if terminal.wants_json() {
        terminal.json(outcome)?;
        return Ok(());
    }
    terminal.line(&outcome.message)?;
    for (name, value) in &outcome.fields {
        match value {
            Value::String(text) => terminal.line(format_args!("  {name}: {text}"))?,
            // Each is a sentence of its own.
            Value::Array(lines) if SENTENCES.contains(&name.as_str()) => {
                let mut lines = lines.iter().filter_map(Value::as_str);
                lines.try_for_each(|it| terminal.line(format_args!("  {name}: {it}")))?;
            }
            _ => terminal.line(format_args!("  {name}: {value}"))?,
        }
    }
    Ok(())
}
