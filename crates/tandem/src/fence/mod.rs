//! Talks to the keeper, the process that ends an instance whose lease has passed.
//! One keeper per instance: the parent of the postmaster (or of any command), apart from the
//! daemon, so that a hung, crashed or upgraded daemon neither leaves a zombie primary nor restarts
//! the instance.
//! Keeps: INV-3 no provable lease, no writes.
//! Not here: until when an instance may serve (`tandem_core::cluster::lease`).

pub mod client;
pub mod keeper;
pub mod program;
pub mod protocol;
pub mod stub;
mod watch;
