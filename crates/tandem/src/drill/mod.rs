//! Breaks a cluster on purpose and says what it cost. Talks to the cluster through `Cluster`.
//! In: `DrillArgs`. Out: a report for people or as JSON, and a `Verdict`.
//! Keeps: INV-1 and INV-11 are checked here from outside, by what clients saw.
//! Not here: how processes and links are broken (`dev`).
//! Tested by: the tests of each file, against a plain PostgreSQL and a stand-in cluster.

mod client;
mod cluster;
mod evidence;
mod fault;
mod peers;
mod report;
mod rounds;
mod run;
mod service;
mod stage;
mod steps;
#[cfg(test)]
mod testing;
mod tour;
mod view;
pub mod worker;

pub use cluster::{Action, Cluster};
pub use fault::Fault;
pub use report::{Report, Verdict};
pub use run::{DrillArgs, run};
pub use service::Subject;
pub use tour::{TourArgs, tour};

use crate::dev;
use std::net::SocketAddr;
use std::path::PathBuf;
use tandem_core::ids::NodeId;

/// Why a drill could not go on. What a fault cost is no error: it is in the report.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error(transparent)]
    Cluster(#[from] dev::Error),
    #[error("the cluster was not fully redundant within {seconds} s: {because}")]
    NotRedundant { seconds: u64, because: String },
    #[error("no write went through the front doors within {seconds} s: {because}")]
    NoWrites { seconds: u64, because: String },
    #[error("no front door let the ledger be read within {seconds} s: {because}")]
    Unreadable { seconds: u64, because: String },
    #[error("cannot prepare the tables of the drill")]
    Tables { source: tokio_postgres::Error },
    #[error("there is no fault {name}; try one of {known}")]
    UnknownFault { name: String, known: String },
    #[error("there is no drill for a service {name}; try one of {known}")]
    UnknownSubject { name: String, known: String },
    #[error("{fault} is no fault of the service {subject}; try one of {known}")]
    ForeignFault { fault: Fault, subject: Subject, known: String },
    #[error("cannot use {path}")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("no free loopback addresses for endpoints in {tried} tries")]
    NoFreeAddresses { tried: u32 },
    #[error("there is no endpoint {at}, or it does not run")]
    NoEndpoint { at: usize },
    #[error("endpoint {address} does not answer")]
    Deaf { address: SocketAddr },
    #[error("a process of the drill cannot be started or signalled")]
    Process { source: std::io::Error },
    #[error("tandem {words}: {because}")]
    Command { words: String, because: String },
    #[error("{fault} cannot be done here: {because}")]
    Skipped { fault: Fault, because: String },
    #[error("node {node} refused the switchover")]
    Switchover { node: NodeId, source: dev::Error },
    #[error("a drill needs at least {needed} nodes with data, here are {data_nodes}")]
    TooFewNodes { needed: usize, data_nodes: usize },
    #[error("interrupted; the cluster was removed")]
    Interrupted,
    #[error("the report is no JSON")]
    Json { source: serde_json::Error },
    #[error("cannot print")]
    Print { source: std::io::Error },
}
