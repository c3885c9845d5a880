//! Names the keys of a door that spreads its work, whatever is behind it.

use super::Fallback::{Computed, Required, Unset, Value};
use super::rows;
use tandem_core::pairing::Kind;

rows! {
    &[Kind::Tcp, Kind::Http, Kind::Command];
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
    "services.NAME.held_max": "1 to 1000000" = Computed("sessions_max");
        "How many clients, with http requests, each node lets wait for an endpoint; one more is \
            closed, or gets 503, at once. They are served in the order in which they came."
        because "whoever has a connection may wait; less fails fast when all endpoints are full",
    "services.NAME.rate_limit": "table or false" = Unset("clients may have any number");
        "How many connections, with http how many requests, each node takes in a time: of each \
            client, of all together. What is over it gets 429 with `Retry-After`; a connection is \
            closed."
        because "only the owner knows what the service stands, and what a client may want",
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
    "services.NAME.connect_timeout": "duration, \"10ms\" to \"1min\"" = Value("1s");
        "How long an endpoint may take to accept a connection before another one is tried."
        because "a lost packet is sent again after 1 s: another endpoint is faster than that",
    "services.NAME.accept_proxy": "true or false" = Value("false");
        "Clients come through another proxy that says who they are by the PROXY protocol, \
            version 1 or 2; a connection without it is closed."
        because "whoever sends it can claim to be anybody: see that only the proxy reaches the \
            door, or name it in `accept_proxy_from`",
    "services.NAME.accept_proxy_from": "list of IP addresses and networks" = Unset("everybody who \
        connects has to say it");
        "With `accept_proxy`: only who connects from there says who its client is, and must. \
            Everybody else is a client for itself: a header from there is no header."
        because "only the owner knows where the proxies are",
    "services.NAME.send_proxy": "\"v1\" or \"v2\"" = Unset("endpoints see the node's address");
        "Endpoints are told who the client is by the PROXY protocol, checks that ask something \
            included. With http a connection to an endpoint then belongs to one client's \
            connection: none is used for another client, so that each costs endpoints a new one."
        because "an endpoint that does not expect it takes it for the client's first words",
    "services.NAME.upstream_tls": "table or false" = Unset("endpoints are spoken to in clear");
        "Endpoints are spoken to by TLS 1.2 or 1.3, by clients' connections or requests and by \
            checks; they have to prove their name. Files that are written anew are read again \
            within 10 s."
        because "only the owner knows who may be believed",
    "services.NAME.certificates": "list of tables" = Unset("clients speak in clear");
        "Clients speak TLS 1.2 or 1.3, and are shown the certificate for the name that they ask \
            for; the first one if there is none for it. Files that are written anew are read \
            again within 10 s. With tcp, endpoints get what is inside."
        because "only the owner has certificates for the names of the service",
    "services.NAME.ejection": "table or false" = Computed("what does no work is \
        left out for a while");
        "Whether endpoints that fail are left out for a while, and when; false leaves nobody out."
        because "a check sees what accepts connections, this sees what does nothing with them",
    "services.NAME.upstream_tls.ca": "file" = Required;
        "Whose certificates are believed, in PEM, on every node; for those that your system \
            believes write its own file, such as /etc/ssl/certs/ca-certificates.crt."
        because "only the owner knows who signs for the endpoints",
    "services.NAME.upstream_tls.server_name": "DNS name or IP address" = Computed("the host in \
        `upstreams`");
        "The name that the certificate of an endpoint has to have, and that it is asked for."
        because "most certificates have the name that the endpoint is reached by",
    "services.NAME.upstream_tls.certificate": "file" = Unset("endpoints are not shown any");
        "What endpoints are shown that want to know who asks: the certificate in PEM, then those \
            up to its authority; on every node."
        because "few endpoints ask for one",
    "services.NAME.upstream_tls.key": "file" = Unset("there is no certificate");
        "Its private key in PEM; on every node, readable by the daemon."
        because "the file with the configuration is no place for it: every node prints that one",
    "services.NAME.certificates.INDEX.certificate": "file" = Required;
        "The certificate in PEM, then those up to its authority; on every node."
        because "only the owner knows where it is",
    "services.NAME.certificates.INDEX.key": "file" = Required;
        "Its private key in PEM; on every node, readable by the daemon."
        because "the file with the configuration is no place for it: every node prints that one",
    "services.NAME.ejection.failures": "0 to 1000" = Value("5");
        "So many connections or requests in a row that it refuses, or drops without a word, eject \
            it; 0 is never. The last endpoint is never ejected."
        because "five in a row are no chance",
    "services.NAME.ejection.success_min": "0 to 100" = Value("50");
        "It is ejected when less than this percentage of at least 20 connections or requests in a \
            window goes \
            well; 0 is never."
        because "an endpoint that fails every second client is worth less than none",
    "services.NAME.ejection.latency": "2 to 1000" = Unset("nobody is ejected for being slow");
        "It is ejected when half of at least 20 connections or requests in a window take more \
            than so many times what they take at the one in the middle of the others, and more \
            than 1 ms. Those in other zones are compared with each other alone: their way is \
            longer. What is measured is the time to connect, with http from a request to the \
            head of its response."
        because "peak-ewma and least-connections already send little to what is slow; with \
            round-robin, random and hash it keeps its share, but some pages take long on purpose",
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
