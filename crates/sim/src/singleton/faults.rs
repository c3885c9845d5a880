//! Decides what goes wrong, and when it is mended.

use super::{Event, FAULTS_UNTIL, What, World};
use crate::event::Micros;
use tandem_core::cluster::command::{Command, ServiceCommand};
use tandem_core::cluster::state::Forced;
use tandem_core::facts::Process;
use tandem_core::facts::withdrawal::Wish;
use tandem_core::ids::ServiceId;

/// What ends a fault.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mend {
    Cut,
    Loss,
    Fails(usize),
    Owner,
    Sick(usize),
}

impl World {
    pub(super) fn on_fault(&mut self) {
        if self.now >= FAULTS_UNTIL {
            return;
        }
        self.after(100_000, 6_000_000, Event::Fault);
        let n = match self.rng.below(3) {
            // Where it runs, most faults matter more.
            0 => self.rng.below(self.nodes.len()),
            _ => self.runs_on().first().copied().unwrap_or(0),
        };
        let lasts = self.rng.between(10_000, 6_000_000);
        if self.is_beside() && self.rng.chance(50) {
            return self.trouble(n, lasts);
        }
        match self.rng.below(16) {
            0 => self.power_cycle(n, lasts),
            1 => self.daemon_dies(n, lasts),
            2 => self.freeze(n, lasts),
            3 => self.freeze_daemon(n, lasts),
            4 | 5 => self.cut(n, lasts),
            6 => self.cut_one_way(n, lasts),
            7 => self.lossy(lasts),
            8 => self.kill_copy(n),
            9 => self.fails_here(n, lasts),
            11..=14 if self.is_beside() => self.trouble(n, lasts),
            10 => self.lose_leader((1_000, 500_000), 500_000),
            11 => self.take_out(lasts),
            12 => self.change_members(lasts),
            13 | 14 => self.ask_for_a_restart(n),
            _ => self.operator(),
        }
    }

    fn power_cycle(&mut self, n: usize, lasts: Micros) {
        if self.nodes[n].powered {
            self.power_off(n);
            self.push(self.now + lasts, Event::StartDaemon { n });
        }
    }

    fn daemon_dies(&mut self, n: usize, lasts: Micros) {
        if self.nodes[n].awake() {
            self.kill_daemon(n);
            // Some come back at once, while their copy still runs.
            let lasts = if self.rng.chance(50) { lasts / 20 } else { lasts };
            self.push(self.now + lasts, Event::StartDaemon { n });
        }
    }

    fn freeze(&mut self, n: usize, lasts: Micros) {
        if self.nodes[n].powered && !self.nodes[n].frozen {
            self.note(n, || format!("FREEZES for {} ms", lasts / 1000));
            self.nodes[n].frozen = true;
            self.push(self.now + lasts, Event::Thaw { n });
            self.reconsider_leader();
        }
    }

    fn freeze_daemon(&mut self, n: usize, lasts: Micros) {
        if self.nodes[n].awake() {
            self.note(n, || format!("the daemon FREEZES for {} ms", lasts / 1000));
            self.nodes[n].daemon_frozen = true;
            self.push(self.now + lasts, Event::ThawDaemon { n });
            self.reconsider_leader();
        }
    }

    fn cut(&mut self, n: usize, lasts: Micros) {
        self.note(n, || format!("CUT off for {} ms", lasts / 1000));
        // From all, or from some.
        let all = self.rng.chance(60);
        for peer in (0..self.nodes.len()).filter(|peer| *peer != n) {
            if all || self.rng.chance(50) {
                self.net.set_cut(n, peer, true);
                self.net.set_cut(peer, n, true);
            }
        }
        self.push(self.now + lasts, Event::Mend { kind: Mend::Cut });
        self.reconsider_leader();
    }

    /// Cuts a node off from all others, for good.
    pub fn cut_off(&mut self, n: usize) {
        self.note(n, || "CUT off".into());
        for peer in (0..self.nodes.len()).filter(|peer| *peer != n) {
            self.net.set_cut(n, peer, true);
            self.net.set_cut(peer, n, true);
        }
        self.reconsider_leader();
    }

    /// All hear each other again.
    pub fn heal_links(&mut self) {
        self.mend(Mend::Cut);
        self.reconsider_leader();
    }

    fn cut_one_way(&mut self, n: usize, lasts: Micros) {
        let inwards = self.rng.chance(50);
        self.note(n, || format!("CUT one way, inwards {inwards}"));
        for peer in (0..self.nodes.len()).filter(|peer| *peer != n) {
            let (from, to) = if inwards { (peer, n) } else { (n, peer) };
            self.net.set_cut(from, to, true);
        }
        self.push(self.now + lasts, Event::Mend { kind: Mend::Cut });
        self.reconsider_leader();
    }

    fn lossy(&mut self, lasts: Micros) {
        self.net.loss_percent = self.rng.between(10, 70);
        self.net.delay_max = self.rng.between(3_000, 900_000);
        self.push(self.now + lasts, Event::Mend { kind: Mend::Loss });
    }

    fn fails_here(&mut self, n: usize, lasts: Micros) {
        self.note(n, || "the command FAILS here".into());
        self.nodes[n].fails = true;
        self.kill_copy(n);
        self.push(self.now + lasts, Event::Mend { kind: Mend::Fails(n) });
    }

    fn operator(&mut self) {
        let to = self.nodes[self.rng.below(self.nodes.len())].id.clone();
        let state = self.agreement.last().clone();
        let name = self.operated();
        let Some(service) = state.services.get(&name) else { return };
        let deadline_unix_ms = 1_700_000_000_000 + self.now / 1000 + 20_000;
        let kind = match self.options.what {
            What::Alone => self.rng.below(5) as u64,
            What::Divided(_) | What::Beside => self.rng.between(3, 5),
        };
        let command = match kind {
            0 | 1 => ServiceCommand::RequestSwitchover { to, deadline_unix_ms },
            2 => ServiceCommand::RequestFailover {
                forced: Forced { to: Some(to), accept_loss: true, deadline_unix_ms },
            },
            3 => ServiceCommand::Pause { paused: !service.paused },
            _ => {
                let draining = !state.draining.contains(&to);
                return self.operate(Command::Drain { node: to, draining });
            }
        };
        let (service, expected) = (name, service.revision);
        self.operate(Command::Service { service, expected, command });
    }

    /// By name, or since its configuration has changed.
    fn ask_for_a_restart(&mut self, n: usize) {
        let (s, is_by_name) = (self.own_part(n), self.rng.chance(50));
        if !self.nodes[n].awake() || !self.has_copy(n, s) {
            return;
        }
        self.note(n, || "the copy SHALL START ANEW".into());
        let Some(part) = self.part(n, s) else { return };
        if is_by_name {
            part.wish = Wish::Restart;
        } else {
            part.own.pending_restart = part.own.process == Process::Primary;
        }
        self.drive(n);
    }

    /// What operators name.
    fn operated(&self) -> ServiceId {
        self.work.clone().unwrap_or_else(|| self.services[0].clone())
    }

    pub(super) fn mend(&mut self, kind: Mend) {
        match kind {
            Mend::Cut => {
                for a in 0..self.nodes.len() {
                    (0..self.nodes.len()).for_each(|b| self.net.set_cut(a, b, false));
                }
            }
            Mend::Loss => {
                self.net.loss_percent = 0;
                self.net.delay_max = 3_000;
            }
            Mend::Fails(n) => self.nodes[n].fails = false,
            Mend::Owner => self.put_back(),
            Mend::Sick(n) => self.nodes[n].sick = false,
        }
    }

    pub(super) fn mend_all(&mut self) {
        self.mend(Mend::Cut);
        self.mend(Mend::Loss);
        for n in 0..self.nodes.len() {
            self.mend(Mend::Fails(n));
            self.mend(Mend::Sick(n));
            self.thaw(n);
            self.thaw_daemon(n);
            self.on_start_daemon(n);
        }
        self.reconsider_leader();
    }

    /// Somebody must see to it that it is agreed.
    pub(super) fn resume(&mut self) {
        self.put_back();
        if self.is_beside() {
            self.fill_nodes();
        }
        let state = self.agreement.last().clone();
        let name = self.operated();
        let Some(service) = state.services.get(&name) else { return };
        if service.paused {
            let (service, expected) = (name, service.revision);
            let command = ServiceCommand::Pause { paused: false };
            self.operate(Command::Service { service, expected, command });
        }
    }
}
