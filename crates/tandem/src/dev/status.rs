//! Reads what a node's API says of the cluster. Lenient: what is missing or new does no harm,
//! because a drill also talks to nodes that are half started.
//! In: JSON of `/v1/status`. Out: `Status`.
//! Tested by: below.

use serde::Deserialize;
use tandem_core::ids::NodeId;

/// The cluster, as one node sees it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Its name.
    pub cluster: String,
    /// The Raft leader.
    pub leader: Option<NodeId>,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
    /// Its services.
    pub services: Vec<ServiceStatus>,
    /// What it balances: as the asked node sees it.
    pub balanced: Vec<BalancedStatus>,
}

/// A service whose endpoints something else runs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct BalancedStatus {
    /// Its name.
    pub name: String,
    /// Its endpoints.
    pub upstreams: Vec<UpstreamStatus>,
}

/// An endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct UpstreamStatus {
    /// Where.
    pub address: String,
    /// How it is.
    pub state: Option<String>,
}

/// A node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Option<String>,
    /// How it is.
    pub state: Option<String>,
}

/// A service.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// What an acknowledged commit is worth.
    pub durability: Option<String>,
    /// The epoch.
    pub term: Option<u64>,
    /// How far the appointment has come.
    pub phase: Option<String>,
    /// Who takes writes.
    pub primary: Option<NodeId>,
    /// Its copies.
    pub instances: Vec<InstanceStatus>,
    /// How many of them there are, where they run side by side.
    pub copies: Option<CopiesStatus>,
    /// Who owns how many, where its work is divided.
    pub partitions: Option<PartitionsStatus>,
}

/// Divided work.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PartitionsStatus {
    /// Into so many parts.
    pub count: u32,
    /// So many have an owner.
    pub owned: u32,
    /// By node.
    pub nodes: Vec<NodePartitions>,
}

/// What one node owns of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodePartitions {
    /// Which.
    pub node: String,
    /// So many.
    pub owned: u32,
    /// Of these, asked back.
    pub releasing: u32,
}

/// Copies that run side by side.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CopiesStatus {
    /// So many there shall be.
    pub wanted: usize,
    /// So many take work.
    pub serving: usize,
    /// Whose is being started anew.
    pub turn: Option<NodeId>,
}

/// One copy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct InstanceStatus {
    /// Where.
    pub node: String,
    /// What it does.
    pub role: Option<String>,
    /// How it is.
    pub state: Option<String>,
    /// Past all doors.
    pub address: Option<String>,
    /// Whether commits count on it.
    pub in_commit_quorum: Option<bool>,
    /// Why it is as it is.
    pub reason: Option<String>,
}

impl Status {
    /// A service by name.
    pub fn service(&self, name: &str) -> Option<&ServiceStatus> {
        self.services.iter().find(|service| service.name == name)
    }
}

impl ServiceStatus {
    /// What keeps the service from being fully redundant; none when nothing does.
    pub fn shortcoming(&self, data_nodes: &[NodeId]) -> Option<String> {
        let Some(primary) = &self.primary else { return Some("there is no primary".into()) };
        if !self.phase.as_deref().is_some_and(|phase| phase.eq_ignore_ascii_case("active")) {
            let phase = self.phase.as_deref().unwrap_or("unknown");
            return Some(format!("the primary is {phase}, not active"));
        }
        // Nobody confirms commits in async mode, so nobody can be in the commit quorum.
        let confirmed = self.durability.as_deref() != Some("async");
        data_nodes.iter().filter(|node| *node != primary).find_map(|node| {
            let instance = self.instances.iter().find(|instance| instance.node == node.as_str());
            let Some(instance) = instance else { return Some(format!("{node} has no instance")) };
            let state = instance.state.as_deref().unwrap_or("unknown");
            if state != "streaming" {
                return Some(format!("{node} is {state}"));
            }
            (confirmed && instance.in_commit_quorum != Some(true))
                .then(|| format!("{node} is not in the commit quorum"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(instances: &str) -> ServiceStatus {
        let text = format!(
            r#"{{"cluster":"dev","leader":"b","new":1,"nodes":[{{"name":"a"}}],"services":[
            {{"name":"orders","term":3,"phase":"active","primary":"a","durability":"quorum",
              "endpoints":[{{"node":"a","listen":"127.0.0.11:5432"}}],
              "instances":[{instances}]}}]}}"#
        );
        let status: Status = serde_json::from_str(&text).unwrap();
        status.service("orders").unwrap().clone()
    }

    #[test]
    fn redundancy_needs_every_standby_streaming_and_counted() {
        let nodes = ["a", "b", "c"].map(NodeId::new);
        let b = r#"{"node":"b","role":"standby","state":"streaming","in_commit_quorum":true}"#;
        for (c, expected) in [
            (r#"{"node":"c","state":"streaming","in_commit_quorum":true}"#, None),
            (
                r#"{"node":"c","state":"streaming","in_commit_quorum":false}"#,
                Some("c is not in the commit quorum"),
            ),
            (r#"{"node":"c","state":"cloning","lag_s":null}"#, Some("c is cloning")),
            (r#"{"node":"c","state":null}"#, Some("c is unknown")),
        ] {
            let shortcoming = service(&format!("{b},{c}")).shortcoming(&nodes);
            assert_eq!(shortcoming.as_deref(), expected);
        }
        assert_eq!(service(b).shortcoming(&nodes).as_deref(), Some("c has no instance"));
    }

    #[test]
    fn an_empty_status_is_no_error() {
        let status: Status = serde_json::from_str("{}").unwrap();
        assert!(status.service("orders").is_none());
        assert!(ServiceStatus::default().shortcoming(&[]).is_some());
    }
}
