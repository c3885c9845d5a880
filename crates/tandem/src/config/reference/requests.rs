//! Names the keys that only services of kind http have.

use super::Fallback::Value;
use super::rows;
use tandem_core::pairing::Kind;

rows! {
    &[Kind::Http];
    "services.NAME.idle_timeout": "duration, \"1s\" to \"1d\"" = Value("1min");
        "A request or response, or a connection of another protocol after its upgrade, on which \
            nothing moves for so long is ended."
        because "who is slow still moves something in a minute; a WebSocket that idles longer \
            sends a ping",
}
