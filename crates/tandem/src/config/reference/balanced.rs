//! Names the keys of services whose endpoints something else runs.

use super::Fallback::{Computed, Required, Unset, Value};
use super::rows;
use tandem_core::pairing::Kind;

rows! {
    &[Kind::Tcp, Kind::Http];
    "services.NAME.listen": "port or \"ip:port\"" = Required;
        "The front door, on every node; a port alone listens on the node's `bind`."
        because "only the owner knows where the clients of this protocol connect",
    "services.NAME.upstreams": "list of \"host:port\" or tables, at most 1000" = Required;
        "The endpoints: IP addresses or DNS names, which are looked up again every 10 s; a lost \
            answer never forgets the last good one. A name stands for all of its addresses. Or \
            `[{ service = \"NAME\" }]`: the copies of a command of this file."
        because "Tandem does not run these endpoints: only the owner knows them",
    "services.NAME.hold_max": "duration, \"0s\" to \"10min\"" = Value("15s");
        "How long a client is held while no endpoint takes its connection or request."
        because "a restart of an endpoint fits, and it is less than the usual 30 s of client \
            timeouts",
    "services.NAME.sessions_max": "1 to 100000" = Value("10000");
        "How many connections each node's front door has at once; one more is closed."
        because "a bound, so that a flood of clients cannot use up the node; a connection that \
            idles costs a few kilobytes",
    "services.NAME.drain_max": "duration, \"0s\" to \"1d\"" = Value("5min");
        "What an endpoint still has that gets nothing new, since it is drained or listed no more, \
            has so long to end; then it is cut. So has everything when the service is taken out."
        because "pages, downloads and pools of connections end or are renewed by then; what stays \
            open for ever would keep whoever wants to stop the endpoint waiting for ever",
    "services.NAME.health": "table or false" = Computed("every endpoint is \
        asked by connecting to it");
        "Whether endpoints are asked if they answer, and how; false asks nobody."
        because "without it an endpoint that is gone is found by the clients that are sent there",
    "services.NAME.upstreams.INDEX.address": "\"host:port\"" = Required;
        "Where the endpoint is; written alone, it stands for a table with this key only."
        because "only the owner knows the endpoints",
    "services.NAME.upstreams.INDEX.service": "name of a command" = Unset("the endpoint has \
        an address");
        "Alone in the list, and instead of an address: the endpoints are the copies of that \
            command, and follow it while it runs, restarts or moves, as its own door does: no \
            request is lost by what is planned. Weights and zones are those of its nodes, and its \
            own `health` tells how copies are. Not for a command with partitions."
        because "most endpoints are not run by Tandem",
    "services.NAME.upstreams.INDEX.weight": "1 to 1000" = Value("1");
        "How much work it gets, relative to the others."
        because "most endpoints are alike",
    "services.NAME.upstreams.INDEX.zone": "text" = Unset("it is near to every node");
        "Where it stands: nodes of another zone use it when their own zone is full or mostly \
            gone."
        because "a guessed zone would send work far away",
    "services.NAME.upstreams.INDEX.drain": "true or false" = Value("false");
        "It gets no new connections or requests; what it has gets drain_max to end, then it is cut."
        because "an endpoint is there to work; before it is stopped, this empties it",
    "services.NAME.health.interval": "duration, \"100ms\" to \"1h\"" = Value("2s");
        "The time between two checks of an endpoint by each node: a connection is made and closed, \
            and with a `path` it is asked for that."
        because "an endpoint that vanished is known after 6 s, before most clients give up, and \
            one that refuses a connection costs its client nothing",
    "services.NAME.health.timeout": "duration, less than interval" = Computed("\"1s\", or half \
        the interval if that is less");
        "How long an endpoint may take to accept the check's connection, and to answer."
        because "as connect_timeout: what is slower serves nobody",
    "services.NAME.health.fall": "1 to 100" = Value("3");
        "So many checks in a row fail: it is down. The first check ever decides alone."
        because "one lost packet is no failure",
    "services.NAME.health.rise": "1 to 100" = Value("2");
        "So many checks in a row succeed: it is up again."
        because "what starts may answer once and fall again",
    "services.NAME.health.path": "path" = Unset("a check only connects");
        "What a check asks for with GET, by HTTP."
        because "only the owner knows what says that an endpoint can work",
    "services.NAME.health.host": "host name" = Unset("the endpoint's own address");
        "What the check says in the field `Host`."
        because "most endpoints answer to any name",
    "services.NAME.health.expect": "status, or two with - between them" = Value("200-399");
        "Which statuses are good."
        because "what is there or points elsewhere works; 4xx and 5xx are told apart by nobody",
}
