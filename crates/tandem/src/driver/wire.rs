//! Talks to the same module on other nodes: the messages of the heartbeat and operate channels.
//! Every message begins with a version byte (H46); what is not understood is refused.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tandem_core::facts::NodeFacts;
use tandem_core::ids::{NodeId, ServiceId, Term};

const VERSION: u8 = 1;

/// A heartbeat, and the answer to one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Beat {
    /// What its sender knows of itself.
    pub facts: NodeFacts,
}

/// What one node asks another to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// A controller asks for a promise.
    Recruit {
        /// Of which service.
        service: ServiceId,
        /// The term to promise.
        term: Term,
    },
    /// An operator's wish for that node's own instance.
    Local {
        /// Of which service.
        service: ServiceId,
        /// What.
        wish: Wish,
    },
    /// An operator's verb for the controller, as JSON.
    Operate {
        /// The verb.
        verb: String,
        /// Asked through which node.
        from: NodeId,
    },
}

/// An operator's wish for one instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// Stop cleanly and start again, in its role.
    Restart,
    /// Write the configuration and reload it.
    Reload,
    /// Throw the copy away and make a new one.
    Reinit,
    /// Write a checkpoint while it still serves, so that its shutdown needs a short one.
    Checkpoint,
    /// Stop and stay so: the node is about to be removed.
    Leave,
}

/// What the answer says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Response {
    /// Taken; what comes of it shows in facts and events.
    Taken,
    /// Refused, and why.
    Refused(String),
    /// The outcome of a verb, as JSON.
    Outcome(String),
}

/// The bytes of a message.
pub fn encode<T: Serialize>(message: &T) -> Bytes {
    // These types hold nothing that postcard cannot write; an empty message is refused by `decode`.
    postcard::to_extend(message, vec![VERSION]).map(Bytes::from).unwrap_or_default()
}

/// The message of some bytes.
///
/// # Errors
/// Says which version or shape was not understood.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match bytes.split_first() {
        Some((&VERSION, body)) => postcard::from_bytes(body).map_err(|error| error.to_string()),
        Some((version, _)) => Err(format!("message version {version}, this node speaks {VERSION}")),
        None => Err("an empty message".to_string()),
    }
}
