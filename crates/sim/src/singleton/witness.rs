//! Drives a node that only votes, as the shell does.

use super::{Event, Mutation, World};
use tandem_core::cluster::lease::counts_from;
use tandem_core::cluster::state::ServiceState;
use tandem_core::clustering::active_passive::singleton::Action;
use tandem_core::clustering::active_passive::witness::{Next, WitnessView, plan};
use tandem_core::ids::Term;
use tandem_core::spec::ServiceSpec;
use tandem_core::time::Timestamp;

impl World {
    pub(super) fn drive_witness(
        &mut self,
        (n, s): (usize, usize),
        (state, spec): (&ServiceState, &ServiceSpec),
        now: Timestamp,
    ) {
        let wrong = self.options.mutation == Some(Mutation::VoteAtOnce);
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        let part = &mut daemon.parts[s];
        if part.running.is_some() {
            return;
        }
        let since = part.memory.since();
        let counts_from = counts_from(spec, state, &part.answered, since);
        let view = WitnessView {
            asked: part.asked,
            promised: part.own.promised,
            ballot: part.own.ballot,
            counts_from: counts_from.filter(|_| !wrong),
        };
        match plan(&view, now) {
            Next::Promise { term } => self.begin((n, s), Action::Promise { term }),
            Next::Vote(ballot) => part.own.ballot = Some(ballot),
            Next::Wait(again) => self.look_again(n, again),
        }
    }

    pub(super) fn look_again(&mut self, n: usize, again: Option<Timestamp>) {
        if let Some(at) = again {
            let (inc, at) = (self.nodes[n].daemons, self.nodes[n].clock.when(at));
            self.push(at, Event::Asked { n, inc, s: 0, term: Term(0) });
        }
    }
}
