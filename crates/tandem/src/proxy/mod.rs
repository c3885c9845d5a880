//! Talks to clients: one listener per service, routed by the agreed state.
