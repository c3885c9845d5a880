//! Names the keys that only services of kind tcp have.

use super::Fallback::{Computed, Required, Unset, Value};
use super::rows;
use tandem_core::pairing::Kind;

rows! {
    &[Kind::Tcp];
    "services.NAME.connections_max": "1 to 1000000" = Unset("an endpoint gets whatever comes");
        "How many connections each node has at one endpoint at once; more of them wait for up to \
            hold_max."
        because "only the owner knows what an endpoint stands",
    "services.NAME.idle_timeout": "duration, \"1s\" to \"30d\"" = Value("1h");
        "A connection on which nothing moves for so long is closed; a half-closed one after 60 s."
        because "peers that vanish are found by TCP keepalive after two minutes; this is for \
            peers that forget",
    "services.NAME.health.tls": "table or false" = Unset("a check speaks in clear");
        "A check goes as far as TLS and the endpoint's proof of its name, and asks for its `path` \
            by it. What clients say is passed on as it is, encrypted or not; with `upstream_tls` \
            checks speak as connections do."
        because "only the owner knows what the endpoints of this protocol speak",
    "services.NAME.health.postgres": "table or false" = Unset("a check does not log in");
        "The endpoints are PostgreSQL servers, and a check asks each of them what it is. What \
            clients say is passed on as it is."
        because "who connects to a replica to write learns it too late; servers that Tandem runs \
            need no such check",
    "services.NAME.health.postgres.role": "\"primary\", \"replica\" or \"any\"" = Required;
        "What a server must be to get connections; any is one that lets the user in."
        because "a primary and its replicas answer alike but for their role",
    "services.NAME.health.postgres.user": "role of PostgreSQL" = Required;
        "Who logs in; needs no right but that to connect."
        because "a server tells its role only to who has logged in",
    "services.NAME.health.postgres.database": "name" = Value("postgres");
        "Where the user logs in."
        because "every server has it unless somebody removed it",
    "services.NAME.health.postgres.password_file": "file" = Unset("the servers want no password");
        "What has the user's password, on every node, readable by the daemon; read for each check."
        because "the file with the configuration is no place for it: every node prints that one",
    "services.NAME.health.tls.ca": "file" = Required;
        "Whose certificates are believed, in PEM, on every node."
        because "only the owner knows who signs for the endpoints",
    "services.NAME.health.tls.server_name": "DNS name or IP address" = Computed("the host in \
        `upstreams`");
        "The name that the certificate of an endpoint has to have, and that it is asked for."
        because "most certificates have the name that the endpoint is reached by",
    "services.NAME.health.tls.certificate": "file" = Unset("endpoints are not shown any");
        "What endpoints are shown that want to know who asks, in PEM; on every node."
        because "few endpoints ask for one",
    "services.NAME.health.tls.key": "file" = Unset("there is no certificate");
        "Its private key in PEM; on every node, readable by the daemon."
        because "the file with the configuration is no place for it: every node prints that one",
}
