//! Names the keys that only services of kind http have.

use super::Fallback::{Unset, Value};
use super::rows;
use tandem_core::pairing::Kind;

rows! {
    &[Kind::Http];
    "services.NAME.idle_timeout": "duration, \"1s\" to \"1d\"" = Value("1min");
        "A request or response, or a connection of another protocol after its upgrade, on which \
            nothing moves for so long is ended."
        because "who is slow still moves something in a minute; a WebSocket that idles longer \
            sends a ping",
    "services.NAME.health.path": "path" = Unset("a check only connects");
        "What a check asks for with GET."
        because "only the owner knows what says that an endpoint can work",
    "services.NAME.health.host": "host name" = Unset("the endpoint's own address");
        "What the check says in the field `Host`."
        because "most endpoints answer to any name",
    "services.NAME.health.expect": "status, or two with - between them" = Value("200-399");
        "Which statuses are good."
        because "what is there or points elsewhere works; 4xx and 5xx are told apart by nobody",
}
