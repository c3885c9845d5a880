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
            answer never forgets the last good one. A name stands for all of its addresses."
        because "Tandem does not run these endpoints: only the owner knows them",
    "services.NAME.balance": "\"peak-ewma\", \"round-robin\", \"least-connections\", \"random\" \
        or \"hash\"" = Value("peak-ewma");
        "How an endpoint is chosen for a connection, or with http for a request: the better of \
            two random ones by how long it takes and how much it has in flight; in turns; the \
            least in flight; any; by the client's address or `hash_key`, bounded to 125 % of a \
            fair share."
        because "it avoids what is slow before it fails, and nodes that know nothing of each \
            other do not all choose the same endpoint",
    "services.NAME.slow_start": "duration, \"0s\" to \"1h\"" = Value("10s");
        "How long an endpoint that comes back, or is new beside others, takes to get its whole \
            share."
        because "long enough to fill caches and connection pools; \"0s\" gives it everything at \
            once",
    "services.NAME.rate_limit": "table or false" = Unset("clients may have any number");
        "How many connections, with http how many requests, each node takes in a time: of each \
            client, of all together. What is over it gets 429 with `Retry-After`; a connection is \
            closed."
        because "only the owner knows what the service stands, and what a client may want",
    "services.NAME.hold_max": "duration, \"0s\" to \"10min\"" = Value("15s");
        "How long a client is held while no endpoint takes its connection or request."
        because "a restart of an endpoint fits, and it is less than the usual 30 s of client \
            timeouts",
    "services.NAME.sessions_max": "1 to 100000" = Value("10000");
        "How many connections each node's front door has at once; one more is closed."
        because "a bound, so that a flood of clients cannot use up the node; a connection that \
            idles costs a few kilobytes",
    "services.NAME.held_max": "1 to 1000000" = Computed("sessions_max");
        "How many clients, with http requests, each node lets wait for an endpoint; one more is \
            closed, or gets 503, at once. They are served in the order in which they came."
        because "whoever has a connection may wait; less fails fast when all endpoints are full",
    "services.NAME.connect_timeout": "duration, \"10ms\" to \"1min\"" = Value("1s");
        "How long an endpoint may take to accept a connection before another one is tried."
        because "a lost packet is sent again after 1 s: another endpoint is faster than that",
    "services.NAME.accept_proxy": "true or false" = Value("false");
        "Clients come through another proxy that says who they are by the PROXY protocol, \
            version 1 or 2; a connection without it is closed."
        because "who may leave it out could claim to be anybody: so it is all of them or none",
    "services.NAME.health": "table or false" = Computed("every endpoint is \
        asked by connecting to it");
        "Whether endpoints are asked if they answer, and how; false asks nobody."
        because "without it an endpoint that is gone is found by the clients that are sent there",
    "services.NAME.ejection": "table or false" = Computed("what does no work is \
        left out for a while");
        "Whether endpoints that fail are left out for a while, and when; false leaves nobody out."
        because "a check sees what accepts connections, this sees what does nothing with them",
    "services.NAME.upstreams.INDEX.address": "\"host:port\"" = Required;
        "Where the endpoint is; written alone, it stands for a table with this key only."
        because "only the owner knows the endpoints",
    "services.NAME.upstreams.INDEX.weight": "1 to 1000" = Value("1");
        "How much work it gets, relative to the others."
        because "most endpoints are alike",
    "services.NAME.upstreams.INDEX.zone": "text" = Unset("it is near to every node");
        "Where it stands: nodes of another zone use it when their own zone is full or mostly \
            gone."
        because "a guessed zone would send work far away",
    "services.NAME.upstreams.INDEX.drain": "true or false" = Value("false");
        "It gets no new connections; those that it has end by themselves."
        because "an endpoint is there to work; before it is stopped, this empties it",
    "services.NAME.rate_limit.per_client": "how many/s, /min or /h" = Unset("each may have what \
        all may");
        "What each client may have on each node. A client is an IPv4 address or an IPv6 network of \
            64 bits; of 65536 of them the one that used least lately is forgotten for a new one."
        because "only the owner knows what a client may want",
    "services.NAME.rate_limit.burst": "1 to 1000000" = Computed("as many as per_client has");
        "So many a client may have at once after a pause."
        because "clients come in bursts: a page has many parts",
    "services.NAME.rate_limit.total": "how many/s, /min or /h" = Unset("any number");
        "What all clients together may have on each node."
        because "only the owner knows what the service stands",
    "services.NAME.rate_limit.total_burst": "1 to 1000000" = Unset("as many as total has");
        "So many all of them may have at once after a pause."
        because "as much as a unit of time has is what the service stands",
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
    "services.NAME.ejection.failures": "0 to 1000" = Value("5");
        "So many connections or requests in a row that it refuses, or drops without a word, eject \
            it; 0 is never. The last endpoint is never ejected."
        because "five in a row are no chance",
    "services.NAME.ejection.success_min": "0 to 100" = Value("50");
        "It is ejected when less than this percentage of at least 20 connections or requests in a \
            window goes \
            well; 0 is never."
        because "an endpoint that fails every second client is worth less than none",
    "services.NAME.ejection.window": "duration, \"1s\" to \"1h\"" = Value("10s");
        "How long results count together."
        because "long enough for 20 connections where there are a few in a second",
    "services.NAME.ejection.time": "duration, \"1s\" to \"1h\"" = Value("10s");
        "How long the first ejection lasts; the next ones twice, three times as long."
        because "a restart fits, and an endpoint that was blamed wrongly is back soon",
    "services.NAME.ejection.time_max": "duration, time to \"1d\"" = Value("5min");
        "The longest ejection."
        because "whoever mends an endpoint should not wait for it",
    "services.NAME.ejection.share_max": "0 to 100" = Value("50");
        "At most this percentage of the endpoints is ejected at once; one may always be, unless it \
            is the last."
        because "where most fail, the fault is elsewhere, and the rest would be crushed",
}
