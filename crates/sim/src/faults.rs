//! Decides what goes wrong, from the seed: crashes at any moment, cuts, freezes of a node or of its
//! daemon alone, sick instances, clocks that step, operators and their configurations.

use crate::event::{Event, Micros};
use crate::options::LAG_MAX;
use crate::world::World;
use std::time::Duration;
use tandem_core::facts::Health;
use tandem_core::spec::Durability;

/// Faults come until then.
pub const FAULTS_UNTIL: Micros = 12_000_000;
/// They begin once the cluster had time to be founded.
const FAULTS_FROM: Micros = 1_500_000;

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are the documentation")]
pub enum Fault {
    PowerOff { n: usize, back: Micros },
    ProcessesDie { n: usize, back: Micros },
    DaemonDies { n: usize, back: Micros },
    PromotionIsLost { cut: Micros, back: Micros },
    KeeperDies { n: usize },
    PostmasterDies { n: usize },
    Freeze { n: usize, thaw: Micros },
    CutOff { n: usize, mend: Micros },
    CutOneWay { from: usize, to: usize, mend: Micros },
    CutStream { a: usize, b: usize, mend: Micros },
    Mend { from: usize, to: usize },
    MendStream { a: usize, b: usize },
    FreezeDaemon { n: usize, thaw: Micros },
    Sick { n: usize, health: Health, well: Micros },
    Well { n: usize },
    StepClock { n: usize, by_ms: i64 },
    Applies { n: usize, late: bool, mend: Micros },
    Durability { durability: Durability },
    AllOff { back: Micros },
    Lossy { percent: u64, delay_max: Micros },
    LeaderGivesUp,
    ClientsRest { rest: bool },
    Switchover { to: usize },
    Failover { to: Option<usize>, accept_loss: bool },
    Pause { paused: bool },
    Drain { n: usize, draining: bool },
}

impl World {
    /// Plans the faults of the seed.
    pub fn plan_faults(&mut self) {
        let count = self.rng.between(2, 12);
        let mut at = FAULTS_FROM;
        // Some come close together, some far apart.
        let gap_max = (FAULTS_UNTIL - FAULTS_FROM) * 3 / 2 / count;
        for _ in 0..count {
            at += if self.rng.chance(30) {
                self.rng.between(0, 60_000)
            } else {
                self.rng.between(0, gap_max)
            };
            if at >= FAULTS_UNTIL {
                break;
            }
            let fault = self.draw_fault();
            self.queue.push(at, Event::Fault(fault));
        }
    }

    /// More often the primary and the leader than anybody else: decided when it happens.
    fn draw_fault(&mut self) -> Fault {
        let n = self.rng.below(self.nodes.len() + 2);
        let other = self.rng.below(self.nodes.len());
        let long = self.rng.chance(40);
        let back = if long {
            self.rng.between(1_000_000, 6_000_000)
        } else {
            self.rng.between(20_000, 900_000)
        };
        let mend = back;
        match self.rng.below(54) {
            0..5 => Fault::PowerOff { n, back },
            5..8 => Fault::ProcessesDie { n, back },
            8..12 => Fault::DaemonDies { n, back },
            12 => Fault::KeeperDies { n },
            13..19 => Fault::PostmasterDies { n },
            19..22 => Fault::Freeze { n, thaw: back },
            22..26 => Fault::CutOff { n, mend },
            26..28 => Fault::CutOneWay { from: n, to: other, mend },
            28 => Fault::CutStream { a: n, b: other, mend },
            29 => Fault::AllOff { back },
            30 => Fault::Lossy {
                percent: self.rng.between(0, 30),
                delay_max: self.rng.between(1_000, 300_000),
            },
            31..33 => Fault::LeaderGivesUp,
            33 => Fault::ClientsRest { rest: self.rng.chance(50) },
            34..37 => Fault::Switchover { to: other },
            37 => Fault::Failover {
                to: self.rng.chance(50).then_some(other),
                accept_loss: self.rng.chance(40),
            },
            40..43 => Fault::FreezeDaemon { n, thaw: back },
            43..46 => Fault::Sick { n, health: self.draw_health(), well: back * 2 },
            46 | 47 => Fault::StepClock { n, by_ms: self.rng.between(0, 120_000) as i64 - 60_000 },
            48..50 => Fault::Applies { n: other, late: true, mend },
            50 | 51 => Fault::Durability { durability: self.draw_durability() },
            52 | 53 => Fault::PromotionIsLost {
                cut: self.rng.between(1_500_000, 5_000_000),
                back: self.rng.between(300_000, 6_000_000),
            },
            38 => Fault::Pause { paused: self.rng.chance(60) },
            _ => Fault::Drain { n: other, draining: self.rng.chance(60) },
        }
    }

    fn draw_health(&mut self) -> Health {
        // Since when it lasts is counted from when it began.
        match self.rng.below(4) {
            0 => Health::Hung(Duration::ZERO),
            1 => Health::DiskStuck(Duration::ZERO),
            2 => Health::DiskFull,
            _ => Health::ConnectionsUsedUp,
        }
    }

    fn draw_durability(&mut self) -> Durability {
        match self.rng.below(4) {
            0 => Durability::Async { lag_bytes_max: self.rng.between(20, 200), lag_max: LAG_MAX },
            1 => Durability::Preferred { acks: 1 },
            _ => Durability::Quorum { acks: 1 },
        }
    }

    /// Beyond the nodes' numbers stand the primary and the leader of that moment.
    fn whom(&self, n: usize) -> usize {
        let count = self.nodes.len();
        match n.checked_sub(count) {
            None => n,
            Some(0) => (0..count).find(|n| self.is_primary(*n)).unwrap_or(0),
            Some(_) => self.raft.leader.unwrap_or(0),
        }
    }

    /// It goes wrong.
    pub fn on_fault(&mut self, fault: Fault) {
        if !matches!(fault, Fault::Mend { .. } | Fault::MendStream { .. }) {
            self.note(0, || format!("FAULT {fault:?}"));
        }
        match fault {
            Fault::PowerOff { n, back } => {
                let n = self.whom(n);
                self.power_off(n);
                self.queue.push(self.now + back, Event::Boot { n });
            }
            Fault::AllOff { back } => {
                for n in 0..self.nodes.len() {
                    self.power_off(n);
                    let wait = self.rng.between(0, 3_000_000);
                    self.queue.push(self.now + back + wait, Event::Boot { n });
                }
            }
            Fault::ProcessesDie { n, back } => {
                let n = self.whom(n);
                self.keeper_dies(n);
                self.daemon_dies(n, back);
            }
            Fault::DaemonDies { n, back } => {
                let n = self.whom(n);
                self.daemon_dies(n, back);
            }
            Fault::PromotionIsLost { cut, back } => {
                self.next_dies = Some(back);
                self.cut(Fault::CutOff { n: self.nodes.len(), mend: cut });
            }
            Fault::KeeperDies { n } => {
                let n = self.whom(n);
                self.keeper_dies(n);
            }
            Fault::PostmasterDies { n } => {
                let n = self.whom(n);
                if self.nodes[n].moving() {
                    self.server_ends(n, false, "killed");
                }
            }
            Fault::Freeze { n, thaw } => {
                let n = self.whom(n);
                if self.nodes[n].moving() {
                    self.nodes[n].frozen = true;
                    self.queue.push(self.now + thaw, Event::Thaw { n });
                }
            }
            Fault::FreezeDaemon { .. }
            | Fault::Sick { .. }
            | Fault::Well { .. }
            | Fault::StepClock { .. }
            | Fault::Applies { .. } => self.disturb(fault),
            Fault::LeaderGivesUp => self.abdicate(),
            Fault::ClientsRest { rest } => self.clients_rest = rest,
            Fault::Lossy { percent, delay_max } => {
                self.net.loss_percent = percent;
                self.net.delay_max = delay_max;
            }
            Fault::CutOff { .. }
            | Fault::CutOneWay { .. }
            | Fault::CutStream { .. }
            | Fault::Mend { .. }
            | Fault::MendStream { .. } => self.cut(fault),
            Fault::Switchover { .. }
            | Fault::Failover { .. }
            | Fault::Durability { .. }
            | Fault::Pause { .. }
            | Fault::Drain { .. } => self.operate(fault),
        }
        self.reconsider_leader();
    }

    /// What leaves every process there, but not as it should be.
    fn disturb(&mut self, fault: Fault) {
        match fault {
            Fault::FreezeDaemon { n, thaw } => {
                let n = self.whom(n);
                if self.nodes[n].awake() {
                    self.nodes[n].daemon_frozen = true;
                    self.queue.push(self.now + thaw, Event::ThawDaemon { n });
                }
            }
            Fault::Sick { n, health, well } => {
                let n = self.whom(n);
                self.nodes[n].health = health;
                self.nodes[n].sick_since = self.now;
                self.queue.push(self.now + well, Event::Fault(Fault::Well { n }));
            }
            Fault::Well { n } => self.nodes[n].health = Health::Good,
            Fault::StepClock { n, by_ms } => {
                let n = self.whom(n);
                self.nodes[n].clock.skew_ms += by_ms;
            }
            Fault::Applies { n, late, mend } => {
                self.nodes[n].applies_late = late;
                if late {
                    let mended = Fault::Applies { n, late: false, mend: 0 };
                    self.queue.push(self.now + mend, Event::Fault(mended));
                }
            }
            _ => {}
        }
    }

    fn cut(&mut self, fault: Fault) {
        match fault {
            Fault::CutOff { n, mend } => {
                let n = self.whom(n);
                for peer in (0..self.nodes.len()).filter(|peer| *peer != n) {
                    for (from, to) in [(n, peer), (peer, n)] {
                        self.net.set_cut(from, to, true);
                        let mended = Event::Fault(Fault::Mend { from, to });
                        self.queue.push(self.now + mend, mended);
                    }
                }
            }
            Fault::CutOneWay { from, to, mend } => {
                let from = self.whom(from);
                if from != to {
                    self.net.set_cut(from, to, true);
                    self.queue.push(self.now + mend, Event::Fault(Fault::Mend { from, to }));
                }
            }
            Fault::CutStream { a, b, mend } => {
                let a = self.whom(a);
                if a != b {
                    self.net.set_stream_cut(a, b, true);
                    self.queue.push(self.now + mend, Event::Fault(Fault::MendStream { a, b }));
                }
            }
            Fault::Mend { from, to } => self.net.set_cut(from, to, false),
            Fault::MendStream { a, b } => self.net.set_stream_cut(a, b, false),
            _ => {}
        }
    }

    /// The machine loses power.
    pub fn power_off(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if !node.powered {
            return;
        }
        node.powered = false;
        node.frozen = false;
        node.daemon_frozen = false;
        node.inbox.clear();
        node.daemon = None;
        node.keeper = false;
        self.server_ends(n, false, "the power is gone");
        self.nodes[n].lease = None;
    }

    fn keeper_dies(&mut self, n: usize) {
        if self.nodes[n].moving() {
            self.nodes[n].keeper = false;
            self.server_ends(n, false, "its keeper died");
            // The daemon starts another one at once.
            self.nodes[n].keeper = true;
        }
    }

    fn daemon_dies(&mut self, n: usize, back: Micros) {
        if self.nodes[n].moving() && self.nodes[n].daemon.take().is_some() {
            self.nodes[n].daemon_frozen = false;
            self.nodes[n].inbox.clear();
            self.daemon_is_refused(n);
            self.queue.push(self.now + back, Event::StartDaemon { n });
        }
    }

    /// The machine starts again; its uptime begins anew.
    pub fn on_boot(&mut self, n: usize) {
        let offset = self.rng.between(0, 60_000_000);
        let node = &mut self.nodes[n];
        if node.powered {
            return;
        }
        node.powered = true;
        node.keeper = true;
        node.clock.offset = offset;
        self.queue.push(self.now + 10_000, Event::StartDaemon { n });
    }

    /// The daemon goes on; the keeper and the server were never frozen.
    pub fn on_thaw_daemon(&mut self, n: usize) {
        if !std::mem::take(&mut self.nodes[n].daemon_frozen) || self.nodes[n].frozen {
            return;
        }
        self.nodes[n].thawed = self.now;
        self.wake_up(n);
    }

    fn wake_up(&mut self, n: usize) {
        for event in std::mem::take(&mut self.nodes[n].inbox) {
            let at = self.now + self.rng.between(0, 300);
            self.queue.push(at, event);
        }
        self.reconsider_leader();
    }

    /// It goes on where it was; the keeper looks at the time first (H4).
    pub fn on_thaw(&mut self, n: usize) {
        if !self.nodes[n].frozen {
            return;
        }
        self.nodes[n].frozen = false;
        self.nodes[n].thawed = self.now;
        self.note(n, || "thaws".into());
        if let Some(number) = self.nodes[n].server.as_ref().map(|server| server.number) {
            self.on_lease_ends(n, number);
        }
        self.wake_up(n);
    }

    /// Everything is mended, and everyone is there again.
    pub fn on_heal(&mut self) {
        if self.healed {
            return;
        }
        self.note(0, || "HEAL".into());
        let count = self.nodes.len();
        self.net = crate::network::Net::new(count);
        self.clients_rest = false;
        self.healed = true;
        self.healed_at = self.now;
        for n in 0..count {
            self.on_thaw(n);
            self.on_thaw_daemon(n);
            self.nodes[n].health = Health::Good;
            self.nodes[n].applies_late = false;
            self.on_boot(n);
            self.queue.push(self.now + 20_000, Event::StartDaemon { n });
        }
        self.reconsider_leader();
        self.queue.push(self.now + 1_000_000, Event::Judge);
    }
}
