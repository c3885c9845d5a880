//! Names the keys of the cluster, of its nodes, and those that every service has.
//! Not here: the keys of one kind of service (`postgres.rs`, `balanced.rs`).

use super::Fallback::{Computed, Required, Unset, Value};
use super::rows;

rows! {
    &[];
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
            priority takes over, planned, as soon as one is fed. A command moves back to the node \
            that is preferred once it ran elsewhere for a minute."
        because "all equal, with room above and below; it never outweighs data",
    "nodes.NAME.capacity": "1 to 1000" = Value("1");
        "How much work the node can do, relative to the others: copies of a command are placed on \
            the greater ones first, doors send so much more there, and it owns so many more \
            partitions."
        because "machines of a cluster are mostly alike",
    "services.NAME.kind": "\"postgres\", \"command\", \"tcp\" or \"http\"" = Required;
        "What the service is: each kind has keys of its own."
        because "Tandem must know what it runs",
    "services.NAME.clustering": "\"active-passive\", \"active-active\" or \
        \"load-balanced\"" = Required;
        "Who serves; with tcp and http it is \"load-balanced\", with postgres not yet \
            \"active-active\"."
        because "the owner's decision: a guess would be wrong for somebody",
    "services.NAME.replication": "\"primary-replica\" with postgres, \"none\" with tcp, http \
        and command (\"multi-primary\", \"peer-to-peer\": not in this version yet)" = Required;
        "Who holds the data."
        because "the owner's decision: a guess would be wrong for somebody",
}
