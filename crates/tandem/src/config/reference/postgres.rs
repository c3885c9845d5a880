//! Names the keys of services of kind `postgres`.

use super::Fallback::{Computed, Unset, Value};
use super::rows;
use tandem_core::pairing::Kind;

rows! {
    &[Kind::Postgres];
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
        "A replica further behind serves no reads: in bytes, or by how long it has heard nothing \
            or not replayed what it received."
        because "one segment of WAL: more is a replica in trouble, less would eject healthy ones \
            under load",
    "services.NAME.read_balance": "\"least-connections\", \"peak-ewma\", \"round-robin\", \
        \"random\" or \"hash\"" = Value("least-connections");
        "How a replica is chosen for a session that reads; hash goes by the client's address. \
            Replicas get work by their node's `capacity`, those in this node's `zone` first."
        because "sessions last long and cost differently: the one with the fewest for its \
            capacity has the most room, whatever each of them does",
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
