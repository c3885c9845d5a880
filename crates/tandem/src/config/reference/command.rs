//! Names the keys of services that are commands.

use super::Fallback::{Computed, Required, Unset, Value};
use super::rows;
use tandem_core::pairing::Kind;

rows! {
    &[Kind::Command];
    "services.NAME.command": "list of texts" = Required;
        "Program and arguments. `{port}`, `{bind}` (its node's `bind`) and `{node}` are filled in \
            where it runs; no shell reads it unless it is the program. It must stay in the \
            foreground: once its first process ends, what that left behind is ended too."
        because "Tandem must know what to run",
    "services.NAME.listen": "port or \"ip:port\"" = Unset("there is no front door");
        "The front door, on every node: connections go to the copy, wherever it runs."
        because "many commands serve nobody",
    "services.NAME.port": "1 to 65535" = Computed("listen + 1000; none without listen");
        "Where the command listens itself, on its node's `bind`: `{port}`, and what is asked by \
            `health`."
        because "far enough from the front door's port, and it depends on this service alone",
    "services.NAME.run_as": "user" = Unset("the user of the daemon");
        "The system user that it runs as; only root can choose another."
        because "a guessed user might not have the command's files",
    "services.NAME.cwd": "absolute path" = Unset("a folder of its own in the node's folder");
        "Its working folder, which must exist. What is filled in in `command` is so here, and in \
            `env`, hooks and checks as well."
        because "two commands in one folder would mix their files",
    "services.NAME.env": "table of texts" = Unset("nothing but what follows");
        "Its environment, besides PATH, TANDEM_NODE, TANDEM_SERVICE, TANDEM_TERM, TANDEM_PORT and \
            TANDEM_BIND; nothing is inherited. TANDEM_TERM grows with each move: a number to fence \
            with."
        because "what a daemon happens to have differs from node to node",
    "services.NAME.limits": "table or false" = Computed("the daemon's own");
        "What the kernel limits for it."
        because "only the owner knows what it needs",
    "services.NAME.stop": "list of texts" = Unset("SIGTERM to its first process");
        "A program that asks it to end."
        because "most commands end on SIGTERM",
    "services.NAME.stop_max": "duration, \"100ms\" to \"4min\"" = Value("10s");
        "How long it may take to end; then everything of it is killed."
        because "enough to finish a request, and a move waits for it",
    "services.NAME.health": "table or false" = Computed("it is healthy while it runs");
        "How it is asked whether it is well. One that is not is started anew."
        because "nobody knows how to ask a command but its owner",
    "services.NAME.on_start": "list of texts" = Unset("nothing");
        "A program that is run before each start; if it fails, that start has failed."
        because "few commands need it",
    "services.NAME.on_stop": "list of texts" = Unset("nothing");
        "A program that is run after each planned end, before another node may start it; what it \
            answers changes nothing. It is not run when the copy was killed or its node was lost."
        because "few commands need it",
    "services.NAME.hook_max": "duration, \"100ms\" to \"4min\"" = Value("10s");
        "How long each hook may take; then it is killed, and events say so."
        because "a start or a move waits for it",
    "services.NAME.log_max": "size, \"64kB\" to \"1TB\"" = Value("10MB");
        "How long the file with its output grows before it is moved aside; one older file is kept."
        because "some days of a quiet command, and no disk notices",
    "services.NAME.lease": "duration, \"500ms\" to \"30s\"" = Value("900ms");
        "How long it may run on without proof that nobody else was told to run it; then its node \
            kills it. Another node waits for it to pass before it starts one. It cannot change \
            while the service is there."
        because "a dead node's copy runs elsewhere within 1.5 s; a longer one survives longer \
            stalls of its daemon and network",
    "services.NAME.hold_max": "duration, \"0s\" to \"10min\"" = Value("15s");
        "How long a client is held while no copy takes its connection."
        because "a move fits, and it is less than the usual 30 s of client timeouts",
    "services.NAME.sessions_max": "1 to 100000" = Value("10000");
        "How many connections each node's front door has at once; one more is closed."
        because "a bound, so that a flood of clients cannot use up the node",
    "services.NAME.replicas": "1 to the number of data nodes" = Unset("one on each data node");
        "With load-balanced: how many copies run, each on a node of its own, spread over zones, on \
            nodes of the greatest capacity. One whose node is drained or lost for 5 s, or that \
            fails 5 times in a row, is replaced; nothing moves back."
        because "a copy on every node is next to every door",
    "services.NAME.partitions": "1 to 4096" = Unset("the work is not divided");
        "With active-active: the work is divided into so many partitions, from 0. Every data node \
            runs a copy, and each partition is owned by exactly one of them, shared out by \
            `capacity`. A copy learns what it owns from TANDEM_PARTITIONS_FILE, or from its node's \
            API at TANDEM_API. It cannot change while the service is there."
        because "only the owner knows into how many parts the work can be divided",
    "services.NAME.release_max": "duration, \"100ms\" to \"1h\"" = Value("10s");
        "With partitions: how long a copy may take to end its work on a partition that moves to \
            another node, and to say so; then the copy is stopped, within `stop_max`, since only \
            that proves that it works on it no more."
        because "a unit of work fits, and nobody works on the partition meanwhile",
    "services.NAME.on_partitions": "list of texts" = Unset("nothing");
        "With partitions: a program that is run on a node whenever what its copy owns has changed, \
            one at a time, for the newest state. TANDEM_OWNED and TANDEM_RELEASING have the \
            numbers, with a space between, TANDEM_VERSION grows with each change. It may take \
            `hook_max`; nothing waits for it, and a release is confirmed through the API alone."
        because "a copy reads its file or asks the API; few need a program beside it",
    "services.NAME.partition_key": "\"source\" or a table with one of its keys" = Computed("with \
        door = \"http\" it must be written; else \"source\"");
        "With partitions and listen: what of a request is its key, as `hash_key` says it. \
            Partition = hash of the key modulo `partitions`; the door of every node sends it to \
            that partition's owner, and holds it while there is none. A request without the key \
            is answered 400. Where connections are spread only \"source\" will do. It cannot \
            change while the service is there."
        because "only the owner knows what of a request says where it belongs",
    "services.NAME.drain_max": "duration, \"0s\" to \"1h\"" = Computed("\"30s\"; where one copy \
        runs alone \"2s\", or the shortest hold_max of a door to it if that is less, and at most \
        \"1min\"");
        "Before a copy is stopped by a plan (switchover, drain, restart, another configuration), \
            doors send it nothing new, and what it still serves has so long to end; then it is \
            stopped all the same. Where one copy runs alone, doors hold whoever comes meanwhile, \
            so that it must not be more than `hold_max`, its own or that of a service whose \
            upstreams name it."
        because "requests are over by then; connections that stay open would delay it for ever",
    "services.NAME.door": "\"tcp\" or \"http\"" = Value("tcp");
        "Whether the door spreads connections, whatever they carry, or HTTP requests; the keys of \
            each kind of service apply."
        because "it works for whatever the command speaks",
    "services.NAME.idle_timeout": "duration, \"1s\" to \"30d\"" = Computed("\"1h\"; with \
        door = \"http\" it is \"1min\", and at most \"1d\"");
        "A connection on which nothing moves for so long is closed."
        because "as for services of kind tcp and http",
    "services.NAME.connections_max": "1 to 1000000" = Unset("a copy gets whatever comes");
        "How many connections each node has at one copy at once, where connections are spread; \
            more of them wait for up to hold_max."
        because "only the owner knows what a copy stands",
    "services.NAME.partition_key.header": "name of a field" = Unset("another part of the request");
        "The key is the value of this field of the head; the first one that is there."
        because "only the owner knows which field says where a request belongs",
    "services.NAME.partition_key.cookie": "name of a cookie" = Unset("another part of the request");
        "The key is the value of this cookie."
        because "only the owner knows which cookie says where a request belongs",
    "services.NAME.partition_key.path_segment": "1 to 32" = Unset("another part of the request");
        "The key is this segment of the path, as it is written: in /shops/17/cart the second one \
            is 17."
        because "only the owner knows what the paths mean",
    "services.NAME.limits.nofile": "whole number" = Unset("the daemon's own");
        "Open files."
        because "as for a program that is started by hand",
    "services.NAME.limits.core": "whole number, bytes" = Unset("the daemon's own");
        "Size of a core file."
        because "as for a program that is started by hand",
    "services.NAME.limits.nproc": "whole number" = Unset("the daemon's own");
        "Processes of its user."
        because "as for a program that is started by hand",
    "services.NAME.limits.memlock": "whole number, bytes" = Unset("the daemon's own");
        "Memory that it may lock."
        because "as for a program that is started by hand",
    "services.NAME.limits.address_space": "whole number, bytes" = Unset("the daemon's own");
        "Address space of each process."
        because "as for a program that is started by hand",
    "services.NAME.limits.fsize": "whole number, bytes" = Unset("the daemon's own");
        "Size of a file that it writes."
        because "as for a program that is started by hand",
    "services.NAME.health.http": "path" = Unset("not asked so");
        "A GET of this path at its port must be answered with a status of 200 to 399."
        because "one of http, tcp and exec is chosen",
    "services.NAME.health.tcp": "true or false" = Value("false");
        "Its port must accept a connection."
        because "one of http, tcp and exec is chosen",
    "services.NAME.health.exec": "list of texts" = Unset("not asked so");
        "A program that must end with 0; it runs as the command's user."
        because "one of http, tcp and exec is chosen",
    "services.NAME.health.interval": "duration, \"100ms\" to \"1h\"" = Value("2s");
        "The time between two checks."
        because "a hung command is started anew after 6 s, and the checks cost nothing",
    "services.NAME.health.timeout": "duration, \"10ms\" to \"1min\"" = Computed("\"1s\", or the \
        interval if that is less");
        "How long one check may take; a program that takes longer is killed."
        because "what is slower serves nobody",
    "services.NAME.health.fall": "1 to 100" = Value("3");
        "So many checks in a row fail: it is stopped and started anew."
        because "one slow answer is no failure",
    "services.NAME.health.rise": "1 to 100" = Value("1");
        "So many checks in a row succeed: it is healthy, and clients are let in."
        because "the first answer says that it has started",
    "services.NAME.health.grace": "duration, \"0s\" to \"1h\"" = Value("10s");
        "How long after its start a check that fails does not count."
        because "most commands answer by then",
}
