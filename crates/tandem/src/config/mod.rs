//! Talks to the configuration file: what was written (`raw`) becomes what may be run (`valid`).
//! In: the text of one TOML file, the same on every node. Out: `Config`, or every `Problem` in it.
//! Inside the product a bad value cannot exist: only `Config::parse` makes a `Config`.
//! Keeps: H46 (the pairing is settled before anything starts), H47 (two nodes without a tie-breaker
//! are told so), H48 (`unsafe_change`: one member at a time).
//! Not here: printing (`cli/config.rs`), agreeing on a new file (`consensus`).
//! Tested by: `tests/`, one table of bad files with exact positions, and mutations from a seed.

mod change;
mod differences;
mod edit;
mod file;
mod not_taken;
mod problem;
mod raw;
mod reference;
mod show;
mod valid;
mod value;

#[cfg(test)]
mod tests;

pub use change::{daemon_restart, needs_restart, port_waits, unsafe_change};
pub use differences::differences;
pub use edit::{EditError, NewNode, with_drain, with_durability, with_node, without_nodes};
pub use file::{Error, read_file};
pub use not_taken::{NotTaken, not_taken};
pub(crate) use problem::nearest;
pub use problem::{Code, Problem, Severity};
pub use reference::{Entry, Fallback, entries, reference_markdown};
pub use show::{Origin, Shown, durability_because, show};
pub use valid::{
    Balanced, Certificate, Command, CommandHealth, Config, Copies, Health, Http, KeyDoor,
    LEASE_MAX, Listen, Node, Partitions, Probe, ProxyVersion, Question, RateLimit, ReadLag, Role,
    RoleCheck, Service, Upstream, UpstreamProtocol, UpstreamTls,
};
pub use value::{Host, HostPort, name_flaw, print_bytes, print_duration, print_rate};

/// A longer file is refused before it is parsed: a real one has a few kilobytes.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;

/// More problems than this are counted, not kept.
pub const PROBLEMS_MAX: usize = 100;
