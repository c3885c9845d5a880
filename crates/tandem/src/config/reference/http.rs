//! Names the keys that only services of kind http have.

use super::Fallback::{Computed, Unset, Value};
use super::rows;
use tandem_core::pairing::Kind;

rows! {
    &[Kind::Http, Kind::Command];
    "services.NAME.head_timeout": "duration, \"100ms\" to \"10min\"" = Value("10s");
        "How long the head of a request may take to come whole, from its first byte; then 408."
        because "a head is a packet or a few: who takes longer drips it to keep a connection busy",
    "services.NAME.keep_alive": "duration, \"1s\" to \"1d\"" = Value("1min");
        "How long a client may keep its connection open between two requests."
        because "a person reads a page for about that long, and an idle connection costs little",
    "services.NAME.answer_timeout": "duration, \"100ms\" to \"1d\"" = Value("1min");
        "How long an endpoint may take from the end of a request to the head of its response; then \
            504."
        because "what takes longer on purpose is rare, and its owner knows it",
    "services.NAME.total_timeout": "duration, \"100ms\" to \"1d\"" = Unset("downloads may take as \
        long as they move");
        "How long a request and its response may take in all."
        because "idle_timeout finds what stands still; a bound on the rest would cut slow clients",
    "services.NAME.head_max": "size, \"1kB\" to \"1MB\"" = Value("32kB");
        "The longest head of a request (then 431) or of a response (then 502)."
        because "as much as nginx takes: cookies that need more are a mistake",
    "services.NAME.fields_max": "8 to 128" = Value("100");
        "The most fields in a head."
        because "five times what browsers send",
    "services.NAME.body_max": "size" = Value("1GB");
        "The longest body of a request; then 413. It is never kept, only passed on."
        because "a bound that an upload of a film meets and a flood does not pass",
    "services.NAME.in_flight_max": "1 to 1000000" = Unset("an endpoint gets whatever comes");
        "How many requests each node has at one endpoint at once; more of them wait for up to \
            hold_max."
        because "only the owner knows what an endpoint stands",
    "services.NAME.upstream_idle_max": "0 to 10000" = Value("64");
        "How many connections to each endpoint are kept between requests."
        because "as many as are busy at once in most services; the others are closed",
    "services.NAME.upstream_idle_timeout": "duration, \"100ms\" to \"1h\"" = Value("4s");
        "How long they are kept."
        because "many servers close them after 5 s: a request that meets that is one that failed, \
            unless it may be sent again",
    "services.NAME.trusted": "list of IP addresses and networks" = Unset("nobody is believed");
        "Clients that are proxies themselves: what they say in `X-Forwarded-*` and `Forwarded` is \
            passed on and added to; of everybody else it is replaced."
        because "who may say it could claim to be anybody",
    "services.NAME.sticky": "name of a cookie" = Unset("each request is balanced for itself");
        "Keeps a client at the endpoint that it had first, by a cookie of this name; when that \
            endpoint is out, it gets another one."
        because "it evens out load less well, so it is for services that keep state in an endpoint",
    "services.NAME.upstream_protocol": "\"http1\", \"http2\" or \"auto\"" = Value("http1");
        "What endpoints are spoken to: HTTP/1.1, or HTTP/2 with many requests on one connection, \
            agreed on by ALPN with `upstream_tls` and known beforehand without it. With auto each \
            endpoint chooses by ALPN. gRPC needs http2."
        because "every endpoint of kind http speaks HTTP/1.1",
    "services.NAME.http2": "true or false" = Value("true");
        "Clients may speak HTTP/2: they agree on it by ALPN where they speak TLS, and begin with \
            it where they speak in clear."
        because "browsers and gRPC ask for it; everything else goes on with HTTP/1.1",
    "services.NAME.retry": "table or false" = Computed("within a budget");
        "Whether a request is sent once more where that is safe: its connection broke before one \
            byte of a response, it has no body, and its method is GET, HEAD, OPTIONS, TRACE, PUT \
            or DELETE; or nothing of it was sent."
        because "an endpoint that dies then costs no request; the budget keeps retries from being \
            the load that holds a service down",
    "services.NAME.hash_key": "\"source\" or a table with one of its keys" = Unset("the client's \
        address, with balance = \"hash\"");
        "What of a request balance = \"hash\" goes by; \"source\" is the client's address: with \
            trusted proxies the one that they saw. A request without the key is balanced as by \
            peak-ewma."
        because "every request has an address; only the owner knows what else keeps together what \
            belongs together",
    "services.NAME.retry.percent": "0 to 100" = Value("20");
        "So many retries per 100 requests."
        because "a fifth more load is what a service stands that has room for its peaks",
    "services.NAME.retry.per_second": "0 to 10000" = Value("10");
        "And so many per second, on each node."
        because "a service with few requests has some retries as well",
    "services.NAME.hash_key.header": "name of a field" = Unset("another part of the request");
        "The key is the value of this field of the head; the first one that is there."
        because "only the owner knows which field says where a request belongs",
    "services.NAME.hash_key.cookie": "name of a cookie" = Unset("another part of the request");
        "The key is the value of this cookie."
        because "only the owner knows which cookie says where a request belongs",
    "services.NAME.hash_key.path_segment": "1 to 32" = Unset("another part of the request");
        "The key is this segment of the path, as it is written: in /shops/17/cart the second one \
            is 17."
        because "only the owner knows what the paths mean",
    "services.NAME.rate_limit.key": "\"source\" or a table with one of its keys" = Unset("clients \
        are told apart by their addresses");
        "What tells clients apart for `per_client`, as `hash_key` does; a request without it \
            counts by its client's address, with trusted proxies by the one that they saw."
        because "an address is what a client cannot choose; what it writes into a field it can, so \
            that `total` should bound all of them",
    "services.NAME.rate_limit.key.header": "name of a field" = Unset("another part of it");
        "Clients are told apart by this field of the head."
        because "only the owner knows which field has a client's key",
    "services.NAME.rate_limit.key.cookie": "name of a cookie" = Unset("another part of it");
        "Clients are told apart by this cookie."
        because "only the owner knows which cookie has a client's key",
    "services.NAME.rate_limit.key.path_segment": "1 to 32" = Unset("another part of it");
        "Clients are told apart by this segment of the path."
        because "only the owner knows what the paths mean",
    "services.NAME.ejection.errors": "true or false" = Value("true");
        "A response with a status of 500 or more counts as failed."
        because "an endpoint that answers with nothing but errors does no work",
}
