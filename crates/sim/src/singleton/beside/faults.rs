//! Decides what goes wrong with copies side by side, and what their owner does meanwhile.

use super::Event;
use crate::event::Micros;
use crate::singleton::faults::Mend;
use crate::singleton::{Event as Outer, World};
use tandem_core::cluster::command::{Command, ServiceCommand};
use tandem_core::cluster::copies::CopiesCommand;
use tandem_core::clustering::copies::copy::Wish;
use tandem_core::spec::Copies;

/// What only copies suffer, or their owner does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    /// Checks fail on one node.
    Sick,
    /// They do on all.
    AllSick,
    /// The file says another number of them.
    Replicas,
    /// The file says another way to run them.
    Recipe,
    /// An operator has all of them started anew, in turns.
    Round,
    /// Or one of them.
    One,
    /// Or has nodes emptied, or filled.
    Drain,
}

impl World {
    pub(crate) fn trouble(&mut self, n: usize, lasts: Micros) {
        match self.rng.below(9) {
            0 => self.suffer(Trouble::Sick, n, lasts),
            1 => self.suffer(Trouble::AllSick, n, lasts),
            2 => self.suffer(Trouble::Replicas, n, lasts),
            3 | 4 => self.suffer(Trouble::Recipe, n, lasts),
            5 | 6 => self.suffer(Trouble::Round, n, lasts),
            7 => self.suffer(Trouble::One, n, lasts),
            _ => self.suffer(Trouble::Drain, n, lasts),
        }
    }

    fn suffer(&mut self, what: Trouble, n: usize, lasts: Micros) {
        self.note(n, || format!("{what:?} for {} ms", lasts / 1000));
        let service = self.services[0].clone();
        let expected = self.agreement.last().services.get(&service).map(|it| it.revision);
        let Some(expected) = expected else { return };
        match what {
            Trouble::Sick => {
                self.nodes[n].sick = true;
                self.push(self.now + lasts, Outer::Mend { kind: Mend::Sick(n) });
            }
            Trouble::AllSick => {
                for n in 0..self.nodes.len() {
                    self.nodes[n].sick = true;
                    // Not all get well at once.
                    let lasts = lasts / 2 + self.rng.between(0, lasts);
                    self.push(self.now + lasts, Outer::Mend { kind: Mend::Sick(n) });
                }
            }
            Trouble::Replicas => self.want_replicas(),
            Trouble::Recipe => self.change_recipe(),
            Trouble::Round => {
                let command = ServiceCommand::Copies(CopiesCommand::Restart);
                self.operate(Command::Service { service, expected, command });
            }
            Trouble::One => {
                if let Some(daemon) = self.nodes[n].daemon.as_mut() {
                    daemon.parts[0].wish = Wish::Restart;
                    self.hub_changed(n);
                }
            }
            Trouble::Drain => {
                let (n, left) = (self.rng.below(self.nodes.len()), self.rng.below(5));
                self.on_drains(n, left);
            }
        }
    }

    pub(super) fn on_drains(&mut self, n: usize, left: usize) {
        let node = self.nodes[n].id.clone();
        let draining = !self.agreement.last().draining.contains(&node);
        self.operate(Command::Drain { node, draining });
        if left > 0 {
            let event = Event::Drains { n, left: left - 1 };
            self.after(2_000, 500_000, Outer::Beside(event));
        }
    }

    /// An operator wants one copy to start anew.
    pub fn ask_anew(&mut self, n: usize) {
        self.suffer(Trouble::One, n, 0);
    }

    fn want_replicas(&mut self) {
        let most = self.nodes.len() + 1;
        let count = self.rng.below(most) as u32;
        let replicas = (count > 0).then_some(count);
        self.configure(move |spec| {
            for service in spec.services.values_mut() {
                service.copies = service.copies.map(|copies| Copies { replicas, ..copies });
            }
        });
    }

    /// Each node has the new file a moment later than the others.
    fn change_recipe(&mut self) {
        self.side.recipe += 1;
        let recipe = self.side.recipe;
        for n in 0..self.nodes.len() {
            self.after(0, 500_000, Outer::Beside(Event::Recipe { n, recipe }));
        }
    }

    /// Once all is healed somebody sees to it that nodes are filled again: where all but one are
    /// emptied, its copy waits for another that serves before it starts anew.
    pub(crate) fn fill_nodes(&mut self) {
        let draining = self.agreement.last().draining.clone();
        let stay = usize::from(self.nodes.len() > 3);
        if let Some(node) = draining.into_iter().nth(stay) {
            self.operate(Command::Drain { node, draining: false });
        }
    }
}
