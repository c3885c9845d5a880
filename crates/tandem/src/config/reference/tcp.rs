//! Names the keys that only services of kind tcp have.

use super::Fallback::{Unset, Value};
use super::rows;
use tandem_core::pairing::Kind;

rows! {
    &[Kind::Tcp];
    "services.NAME.idle_timeout": "duration, \"1s\" to \"30d\"" = Value("1h");
        "A connection on which nothing moves for so long is closed; a half-closed one after 60 s."
        because "peers that vanish are found by TCP keepalive after two minutes; this is for \
            peers that forget",
    "services.NAME.send_proxy": "\"v1\" or \"v2\"" = Unset("endpoints see the node's address");
        "Endpoints are told who the client is by the PROXY protocol."
        because "an endpoint that does not expect it takes it for the client's first words",
}
