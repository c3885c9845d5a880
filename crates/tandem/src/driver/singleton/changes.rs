//! Carries out that a command is to be run in another way from now on.
//! In: `Change`. Out: the own copy is started anew, where that is what it takes.
//! Keeps: INV-12 it ends and starts as ever, under its lease. What a copy was started with is
//! durable, so that a change counts which came while no daemon was there.
//! Not here: what may change (`config/change/command.rs`), doors (`node/services/commands.rs`).
//! Tested by: `tests/changes.rs`, `tests/singleton`.

use super::{Life, SingletonDriver};
use crate::fence::protocol::Limit;
use crate::runtime::clock;
use crate::service::command::CommandConfig;
use std::collections::BTreeMap;

/// What a node wants of its copy from now on.
#[derive(Debug)]
pub enum Change {
    /// It is run so.
    Config(Box<CommandConfig>, BTreeMap<Limit, u64>),
}

impl SingletonDriver {
    pub(super) fn on_change(&mut self, change: Change) {
        let Change::Config(config, limits) = change;
        let before = self.recipe();
        if self.it.config.on_partitions != config.on_partitions {
            // That one is not run any more.
            self.own.hook_failed = false;
        }
        let asked = self.it.config.health.clone();
        self.it.config = *config;
        self.it.limits = limits;
        if self.recipe() != before {
            // What failed may be mended by it.
            self.own.starts_failed = 0;
            self.retry_at = clock::now();
        }
        let is_outdated = self.durable.recipe != 0 && self.durable.recipe != self.recipe();
        self.checks.keep(is_outdated.then_some(asked));
        // Nobody asks it any more.
        let is_well = self.asked().is_none() && self.own.serving.is_none();
        if is_well && self.life == Life::Runs {
            self.serves(clock::now());
        }
    }

    pub(super) fn recipe(&self) -> u64 {
        self.it.config.recipe(&self.it.limits)
    }

    /// Whether what runs was started otherwise than it shall be run.
    pub(super) fn is_outdated(&self) -> bool {
        let is_known = self.durable.recipe != 0 && self.life == Life::Runs;
        is_known && self.durable.recipe != self.recipe()
    }
}
