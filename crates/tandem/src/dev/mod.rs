//! Runs a whole cluster on one machine, with relays between its nodes.
