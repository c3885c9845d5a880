//! Checks INV-6: a command or a durable change that is applied twice equals once.

use crate::world::{World, name};
use tandem_core::cluster::command::Command;
use tandem_core::cluster::state::{Applied, ClusterState};

/// A state file was changed twice.
pub fn check_state(world: &mut World, n: usize, same: bool) {
    world.check(same, || format!("INV-6: {} is different after the same change", name(n)));
}

impl World {
    /// A command that is delivered again changes nothing.
    pub fn check_idempotent(&mut self, after: &ClusterState, command: &Command) {
        if let Command::Noop = command {
            return;
        }
        let mut twice = after.clone();
        let again = twice.apply(command);
        let same = twice == *after && again != Applied::Changed;
        self.check(same, || format!("INV-6: {command:?} applies twice"));
    }
}
