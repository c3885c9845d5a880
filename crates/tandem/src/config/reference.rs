//! Talks to the documentation: every key, its type, its default, and why that default.
//! In: nothing. Out: `ENTRIES`, and the reference page made of them.
//! Not here: reading and checking (`raw`, `valid`).
//! Tested by: `config/tests/reference.rs`: a key or a default that drifted fails.

use std::fmt::Write;

/// What a key is when it is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// It must be written.
    Required,
    /// This value, as it would be written.
    Value(&'static str),
    /// A value that depends on others.
    Computed(&'static str),
    /// Nothing, and what that means.
    Unset(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path; `NAME` and `SETTING` stand for a name of the owner's choice.
    pub key: &'static str,
    /// What it takes.
    pub takes: &'static str,
    /// What it is when it is not written.
    pub default: Fallback,
    /// What it does.
    pub what: &'static str,
    /// Why the default is what it is, or why there is none.
    pub reason: &'static str,
    /// The version that brought it.
    pub since: &'static str,
}

use Fallback::{Computed, Required, Unset, Value};

macro_rules! entries {
    ($(
        $key:literal: $takes:literal = $default:expr;
        $what:literal because $reason:literal
    ),+ $(,)?) => {
        /// Every key of the file, in the order of the page.
        pub const ENTRIES: &[Entry] = &[$(Entry {
            key: $key,
            takes: $takes,
            default: $default,
            what: $what,
            reason: $reason,
            since: "0.1.0",
        }),+];
    };
}

entries! {
    "cluster": "name" = Required;
        "Names the cluster, in certificates, logs and `tandem status`."
        because "two clusters of one owner must not be mistaken for each other",
    "nodes.NAME.address": "\"host:port\"" = Required;
        "Where the other nodes reach this one: an IPv4 address, an IPv6 address in brackets, or a \
            DNS name."
        because "only the owner knows which of a machine's addresses the others can reach",
    "nodes.NAME.bind": "IP address" = Computed("the address, if it is an IP address; else \
        \"0.0.0.0\"");
        "What the node's listeners for nodes, clients and replicas bind to."
        because "the address that others use is one of the machine's own; behind a name or a \
            translated address nobody knows which",
    "nodes.NAME.api": "\"ip:port\"" = Computed("\"127.0.0.1:7401\"; port 7401 of the node's own \
        address if that is a loopback address");
        "Where the HTTP interface listens."
        because "loopback only until its owner decides otherwise; nodes that share a machine have \
            loopback addresses of their own",
    "nodes.NAME.zone": "text" = Unset("the node is in no zone");
        "Where the node stands, such as a data centre: among candidates with equal data and \
            priority one in the old primary's zone takes over."
        because "a guessed zone would be a promise about failures that nobody made",
    "nodes.NAME.role": "\"data\" or \"witness\"" = Value("data");
        "A data node votes and runs instances; a witness votes only."
        because "most nodes hold data; a witness is the exception that breaks a tie",
    "nodes.NAME.priority": "0 to 1000" = Value("100");
        "Among standbys with equal data the greatest is preferred. 0 is never primary for long: it \
            is elected only if it alone holds the newest data, and then a standby of another \
            priority takes over, planned, as soon as one is fed."
        because "all equal, with room above and below; it never outweighs data",
    "services.NAME.kind": "\"postgres\" (\"command\", \"http\", \"tcp\": not in this version \
        yet)" = Required;
        "What the service is."
        because "Tandem must know what it runs",
    "services.NAME.clustering": "\"active-passive\" or \"load-balanced\" (\"active-active\": not \
        in this version yet)" = Required;
        "Who serves."
        because "the owner's decision: a guess would be wrong for somebody",
    "services.NAME.replication": "\"primary-replica\" (\"none\", \"multi-primary\", \
        \"peer-to-peer\": not in this version yet)" = Required;
        "Who holds the data."
        because "the owner's decision: a guess would be wrong for somebody",
    "services.NAME.durability": "\"quorum\", \"preferred\" or \"async\"" = Computed("\"quorum\"; \
        \"preferred\" with exactly two data nodes");
        "What an acknowledged commit is worth: quorum waits rather than risk one, preferred \
            shrinks to what is left, async confirms alone."
        because "no acknowledged commit is ever lost unless its owner allows it; with two data \
            nodes quorum would stop writes whenever either is down",
    "services.NAME.acks": "1 to the number of standbys" = Value("1");
        "How many standbys confirm each commit."
        because "one more copy survives the loss of any one node; each further one makes every \
            commit wait for a slower disk",
    "services.NAME.async_lag_max": "size" = Value("1MB");
        "With durability = \"async\": no failover to a standby further behind than this."
        because "a second or less of a moderate load: what may be lost has a bound from the start",
    "services.NAME.async_delay_max": "duration" = Value("10s");
        "With durability = \"async\": no failover to a standby that lacks what was written in a \
            longer time than this, as far as it was heard."
        because "one that streams is milliseconds behind: longer means that it was cut off, \
            however few bytes that are",
    "services.NAME.listen": "port or \"ip:port\"" = Value("5432");
        "The front door, on every node; a port alone listens on the node's `bind`."
        because "PostgreSQL's own port: clients need not change",
    "services.NAME.read_listen": "port or \"ip:port\"" = Computed("the port after `listen`; none \
        with active-passive");
        "The front door for reads, spread over the replicas; with load-balanced only."
        because "a client must say that it reads only, and a port of its own says it",
    "services.NAME.read_lag_max": "size or duration" = Value("16MB");
        "A replica further behind serves no reads."
        because "one segment of WAL: more is a replica in trouble, less would eject healthy ones \
            under load",
    "services.NAME.port": "1 to 65535" = Computed("`listen` + 1000");
        "The port of the instance itself, on each data node: replicas and front doors connect to \
            it."
        because "front door and instance listen side by side; it depends on this service alone, \
            so another service that comes or goes never moves it",
    "services.NAME.hold_max": "duration, \"0s\" to \"10min\"" = Value("15s");
        "How long a client is held while the service moves, before it gets an error."
        because "three times the slowest failover that is planned for, and less than the usual 30 \
            s of client timeouts",
    "services.NAME.held_max": "1 to sessions_max" = Computed("sessions_max");
        "How many clients each node holds at once while the service moves."
        because "whoever has a session may be held; less is for machines with little memory",
    "services.NAME.sessions_max": "1 to 100000" = Value("1000");
        "How many sessions each node's front door has at once."
        because "a bound, so that a flood of clients cannot use up the node; more than \
            PostgreSQL's max_connections, so that its own answer is seen first",
    "services.NAME.bin_dir": "folder" = Unset("each node finds PostgreSQL's programs");
        "Where PostgreSQL's programs are, on every data node."
        because "packages put them in known places; a node says which it found",
    "services.NAME.data_dir": "folder" = Unset("`services/NAME/data` in the node's own folder");
        "Where the data is, on every data node: to adopt a data directory that exists."
        because "the node's folder is Tandem's own, so nothing else writes there",
    "services.NAME.ballast": "size" = Value("64MB");
        "A file of this size beside the data, given up when the disk is full; \"0B\" is none."
        because "four segments of WAL: a shutdown, a move away or a recovery can still be written \
            on a disk that is full",
    "services.NAME.run_as": "user name" = Unset("`postgres` if the daemon runs as root, else the \
        daemon's own user");
        "The system user that the instance runs as."
        because "PostgreSQL refuses root, and packages make the user postgres",
    "services.NAME.hba": "list of pg_hba.conf lines" = Unset("only Tandem's own rules");
        "Rules for clients that reach the instance, after Tandem's own rules."
        because "whom none of them matches gets in with a password, from everywhere: the last \
            rule of the file is `host all all all scram-sha-256`; end yours with a `reject` to \
            change it",
    "services.NAME.postgresql.SETTING": "text, number or boolean" = Unset("PostgreSQL's own \
        default, or Tandem's where failover needs one");
        "A setting as in postgresql.conf; the ones that failover depends on are refused."
        because "PostgreSQL's defaults are documented there",
    "services.NAME.timing.heartbeat": "duration, \"20ms\" to \"5s\"" = Value("100ms");
        "The time between two heartbeats of a node."
        because "ten per suspicion time: several may be late or lost before anybody is suspected",
    "services.NAME.timing.suspicion": "duration, \"200ms\" to \"1min\"" = Value("1s");
        "Silence after which a node is suspected."
        because "longer than the pauses of a healthy machine, and half of the 2 s that a silent \
            failure may take",
    "services.NAME.timing.lease": "duration, \"300ms\" to \"30s\"" = Value("1500ms");
        "How long a primary may serve on one proof."
        because "longer than suspicion, so that no healthy primary stops before anybody could \
            replace it; with detection under 2 s",
    "services.NAME.timing.drift_margin": "duration, \"10ms\" to \"10s\"" = Value("100ms");
        "What the clocks of two nodes may drift apart during one lease."
        because "a hundred times what clocks drift in 1.5 s: the rest is for late timers",
    "services.NAME.timing.stable_after": "duration, \"1s\" to \"1h\"" = Value("10s");
        "A primary that lasted less counts as flapping."
        because "a move that did not help should not be repeated at once; a real second failure \
            is rarer than that",
    "services.NAME.timing.rejoin_patience": "duration, \"1s\" to \"1h\"" = Value("6s");
        "How long a replica may not stream from a healthy primary before it is rewound or copied \
            anew."
        because "the WAL receiver retries after 5 s: one retry must fit",
}

/// The entry of a key as it is in a file: `services.orders.listen`.
pub(super) fn entry_of(key: &str) -> Option<&'static Entry> {
    let matches = |pattern: &str| {
        let mut parts = key.split('.');
        let fits = pattern.split('.').all(|expected| match (expected, parts.next()) {
            ("NAME" | "SETTING", found) => found.is_some(),
            (expected, found) => found == Some(expected),
        });
        // A setting may have a dot of its own.
        fits && (parts.next().is_none() || pattern.ends_with("SETTING"))
    };
    ENTRIES.iter().find(|entry| matches(entry.key))
}

const PAGE_START: &str = "\
# Configuration reference

One TOML file, `tandem.toml`, the same on every node. A key that is not listed here is an error.
`tandem config check` finds every problem of a file; `tandem config show` prints every value that is
in effect, and whether it comes from the file or from the table below.

- *name*: `a` to `z`, digits and `-`, starting with a letter, at most 31 characters.
- *duration*: a whole number and `ms`, `s`, `min`, `h` or `d`, in quotes.
- *size*: a whole number and `B`, `kB`, `MB`, `GB` or `TB`, in quotes;
  1 MB is 1024 kB, as in PostgreSQL.
- The file holds no secret: passwords are derived from the cluster's secret in each node's
  identity folder.
- `master-slave` and `multi-master` are read as `primary-replica` and `multi-primary`,
  with a warning.
";

/// The reference page, in Markdown.
pub fn reference_markdown() -> String {
    let mut page = String::from(PAGE_START);
    let mut section = None;
    for entry in ENTRIES {
        let (table, key) = entry.key.rsplit_once('.').unwrap_or(("", entry.key));
        if section != Some(table) {
            section = Some(table);
            let title =
                if table.is_empty() { "Top level".to_owned() } else { format!("`[{table}]`") };
            page.push_str(&format!("\n## {title}\n\n"));
            page.push_str("| Key | Takes | Default | What it does | Why this default | Since |\n");
            page.push_str("|---|---|---|---|---|---|\n");
        }
        let default = match entry.default {
            Required => "must be written".to_owned(),
            Value(value) => format!("`{value}`"),
            Computed(rule) => rule.to_owned(),
            Unset(meaning) => format!("not set: {meaning}"),
        };
        let Entry { takes, what, reason, since, .. } = entry;
        // Writing to a String cannot fail.
        let _ = writeln!(page, "| `{key}` | {takes} | {default} | {what} | {reason} | {since} |");
    }
    page
}
