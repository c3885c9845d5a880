//! Carries out pg_rewind and base backups: a sentinel first (H19), then the data, then no sentinel.

use super::driver::Running;
use super::steps::{Outcome, adopt_state};
use crate::postgres::wal::DataDir;
use crate::world::{World, index};
use tandem_core::ids::{NodeId, Term, TimelineId};
use tandem_core::lsn::Lsn;

impl World {
    fn source(&self, n: usize, from: &NodeId) -> Option<&DataDir> {
        let up = index(from);
        let serves = self.is_primary(up) && self.nodes[up].moving() && self.net.streams(n, up);
        self.nodes[up].disk.data.as_ref().filter(|_| serves)
    }

    pub(super) fn step_rewind(
        &mut self,
        n: usize,
        (from, served): (&NodeId, (Term, TimelineId)),
        running: &mut Running,
    ) -> Outcome {
        match running.step {
            0 => {
                let Some(data) = self.nodes[n].disk.data.as_ref() else {
                    return Outcome::Failed("no data");
                };
                if self.nodes[n].server.is_some() || data.in_recovery && !data.clean {
                    return Outcome::Failed("a standby that crashed is not rewound (H21)");
                }
                if self.source(n, from).is_none() {
                    return Outcome::Failed("the source does not answer");
                }
                self.nodes[n].disk.sentinel = true;
                Outcome::Next(30_000, 400_000)
            }
            1 => {
                let Some(source) = self.source(n, from).cloned() else {
                    return Outcome::Failed("the source went away");
                };
                let disk = &mut self.nodes[n].disk;
                let Some(data) = disk.data.as_mut() else { return Outcome::Failed("no data") };
                // By timelines and pg_control alone, as pg_rewind does (H6, H18).
                let needed = data.rewind_is_needed(&source);
                if needed {
                    let known = std::mem::take(&mut data.known);
                    *data = DataDir::copy_of(&source);
                    data.known.extend(known);
                }
                disk.sentinel = false;
                Outcome::Next(500, 5_000)
            }
            _ => self.copied(n, served),
        }
    }

    pub(super) fn step_clone(
        &mut self,
        n: usize,
        (from, served): (&NodeId, (Term, TimelineId)),
        running: &mut Running,
    ) -> Outcome {
        match running.step {
            0 => {
                if self.nodes[n].server.is_some() || self.source(n, from).is_none() {
                    return Outcome::Failed("the source does not answer");
                }
                let disk = &mut self.nodes[n].disk;
                disk.sentinel = true;
                disk.data = None;
                Outcome::Next(100_000, 1_200_000)
            }
            1 => {
                let Some(source) = self.source(n, from).cloned() else {
                    return Outcome::Failed("the source went away");
                };
                let disk = &mut self.nodes[n].disk;
                disk.data = Some(DataDir::copy_of(&source));
                disk.sentinel = false;
                Outcome::Next(500, 5_000)
            }
            _ => self.copied(n, served),
        }
    }

    fn copied(&mut self, n: usize, (term, timeline): (Term, TimelineId)) -> Outcome {
        self.change_state(n, |state| {
            state.was_primary = false;
            state.followed = state.followed.max(term);
            state.followed_timeline = timeline;
        });
        let disk = self.nodes[n].disk.clone();
        Outcome::done(move |own, state| {
            let mut fresh = tandem_core::facts::InstanceFacts::default();
            disk.inspect(&mut fresh);
            adopt_state(own, state);
            own.data = fresh.data;
            own.system = fresh.system;
            own.timeline = fresh.timeline;
            own.forks = fresh.forks;
            own.data_term = Term(0);
            own.flushed = Lsn::ZERO;
        })
    }
}
