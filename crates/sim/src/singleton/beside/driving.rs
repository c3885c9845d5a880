//! Drives the own copy of one node, as the shell does.

use super::Event;
use crate::event::Micros;
use crate::singleton::machine::{Copy, Ending};
use crate::singleton::{Event as Outer, Mutation, World};
use std::collections::BTreeMap;
use std::time::Duration;
use tandem_core::attempts::{RAN_WELL_AFTER, retry_after};
use tandem_core::cluster::state::ServiceState;
use tandem_core::clustering::checks::{Answer, Checks, Limits, Origin, Verdict};
use tandem_core::clustering::copies::controller::LOST_AFTER;
use tandem_core::clustering::copies::copy::{self, Action, CopyView, Judged, Wish};
use tandem_core::facts::{InstanceFacts, Link, NodeFacts, Process, instance_differs};
use tandem_core::ids::{NodeId, Term};
use tandem_core::time::{Observed, Timestamp};

/// What an owner wrote.
const LIMITS: Limits = Limits {
    interval: Duration::from_millis(500),
    fall: 3,
    rise: 1,
    grace: Duration::from_secs(3),
};
/// From a start until it answers.
const WARMS_UP: (Micros, Micros) = (20_000, 600_000);
/// From when it is asked to end until it does.
const ENDS_WITHIN: (Micros, Micros) = (5_000, 2_000_000);

/// What a daemon keeps of its copy; lost with it.
#[derive(Debug, Default)]
pub(crate) struct Own {
    unwanted_since: Option<Timestamp>,
    checks: Checks,
    /// The copy that is asked how it is.
    asked: Option<u64>,
    well_since: Option<Timestamp>,
    /// What is being made durable.
    starting: Option<(u64, Term)>,
    /// It was asked to end by a plan.
    stops: bool,
}

impl World {
    /// What a daemon that starts finds.
    pub(super) fn find_copy(&mut self, n: usize) {
        let now = self.nodes[n].clock.at(self.now);
        let found = self.nodes[n].copy.clone();
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        daemon.parts[0].own.serving = None;
        let Some(copy) = found else { return };
        if copy.dying || copy.ending.is_some() {
            daemon.parts[0].own.process = Process::Stopping;
            return;
        }
        self.begin_checks(n, copy.life, Checks::new(Origin::Found, now));
    }

    fn begin_checks(&mut self, n: usize, life: u64, checks: Checks) {
        let inc = self.nodes[n].daemons;
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        daemon.copy.checks = checks;
        daemon.copy.asked = Some(life);
        daemon.copy.well_since = None;
        self.after(0, 2_000, Outer::Beside(Event::Check { n, inc, life }));
    }

    pub(crate) fn drive_beside(&mut self, n: usize) {
        let agreed = self.agreed(n);
        let service = self.services[0].clone();
        let now = self.nodes[n].clock.at(self.now);
        let found = agreed.services.get(&service).zip(agreed.spec.services.get(&service));
        let (Some((state, spec)), true) = (found, self.has_copy(n, 0)) else { return };
        let (recipe, is_run_as) = (self.nodes[n].recipe, self.nodes[n].disks[0].recipe);
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        let (part, own) = (&mut daemon.parts[0], &mut daemon.copy);
        let before = part.own.clone();
        let ran_well = own.well_since.is_some_and(|since| now.since(since) >= RAN_WELL_AFTER);
        if ran_well && !own.checks.fail() {
            part.own.starts_failed = 0;
        }
        part.own.revision = state.revision;
        part.own.pending_restart = part.own.process == Process::Primary && recipe != is_run_as;
        let is_found = own.checks.is_unjudged() && part.own.serving.is_none();
        let (wish, unwanted_since, retry_at) = (part.wish, own.unwanted_since, part.retry_at);
        let mut facts = self.known(n, 0, now);
        let mut state = state.clone();
        self.spoil_copies(n, (&mut facts, &mut state), now);
        let id = self.nodes[n].id.clone();
        let Some(own) = facts.get(&id).and_then(|it| it.last_known().instances.get(&service))
        else {
            return;
        };
        let view = CopyView {
            me: &id,
            service: &service,
            spec,
            nodes: &agreed.spec.nodes,
            draining: &agreed.draining,
            state: &state,
            facts: &facts,
            own,
            wish,
            unwanted_since,
            retry_at,
            judged: if is_found { Judged::NotYet } else { Judged::Yes },
        };
        let next = copy::plan(&view, now);
        self.carry_out_beside(n, &next, now);
        self.tell_copy(n, &before);
    }

    fn tell_copy(&mut self, n: usize, before: &InstanceFacts) {
        let own = self.nodes[n].daemon.as_ref().map(|daemon| daemon.parts[0].own.clone());
        if own.is_some_and(|own| instance_differs(before, &own)) {
            self.plan_beat(n);
            self.plan_guide(n);
        }
    }

    fn carry_out_beside(&mut self, n: usize, next: &copy::Next, now: Timestamp) {
        let text = next.reason.to_string();
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        daemon.copy.unwanted_since = next.unwanted_since(daemon.copy.unwanted_since, now);
        let is_new = daemon.parts[0].planned != text;
        daemon.parts[0].planned.clone_from(&text);
        let acts = next.action.map(|it| it.to_string()).unwrap_or_default();
        if is_new || next.action.is_some() {
            self.note(n, || format!("own copy: {acts}: {text}"));
        }
        match next.action {
            Some(Action::Withdraw) => self.set_withdrawn(n, Some(now)),
            Some(Action::Return) => self.set_withdrawn(n, None),
            Some(Action::Start { term }) => self.start_beside(n, term),
            Some(Action::Stop) => {
                let heard = self.judge_stop_beside(n, next.is_unwanted, now);
                self.end_copy(n, Ending { is_planned: true, heard });
            }
            None => {
                if let Some(at) = next.again {
                    let (inc, at) = (self.nodes[n].daemons, self.nodes[n].clock.when(at));
                    self.push(at, Outer::Drive { n, inc });
                }
            }
        }
    }

    fn set_withdrawn(&mut self, n: usize, at: Option<Timestamp>) {
        let inc = self.nodes[n].daemons;
        if let Some(daemon) = self.nodes[n].daemon.as_mut() {
            daemon.parts[0].own.withdrawn = at;
            self.after(0, 500, Outer::Drive { n, inc });
        }
    }

    fn start_beside(&mut self, n: usize, term: Term) {
        self.ids += 1;
        let (id, inc) = (self.ids, self.nodes[n].daemons);
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        if daemon.copy.starting.is_some() {
            return;
        }
        daemon.copy.starting = Some((id, term));
        daemon.parts[0].wish = Wish::Agreed;
        let own = &mut daemon.parts[0].own;
        (own.withdrawn, own.promoted, own.process) = (None, term, Process::Starting);
        self.after(500, 15_000, Outer::Beside(Event::Begun { n, inc, id }));
    }

    /// What is noted is what is launched.
    pub(super) fn on_begun(&mut self, n: usize, inc: u32, id: u64) {
        let now = self.nodes[n].clock.at(self.now);
        if !self.is_daemon(n, inc) {
            return;
        }
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        let Some((_, term)) = daemon.copy.starting.filter(|(it, _)| *it == id) else { return };
        daemon.copy.starting = None;
        daemon.parts[0].own.process = Process::Primary;
        self.ids += 1;
        let (life, warm) = (self.ids, self.rng.between(WARMS_UP.0, WARMS_UP.1));
        let node = &mut self.nodes[n];
        node.disks[0].begun = term;
        node.disks[0].recipe = node.recipe;
        let ready_at = self.now + warm;
        node.copy = Some(Copy { life, term, ready_at, ..Copy::default() });
        self.last_start = Some((self.now, n));
        self.note(n, || format!("STARTS a copy for round {term}"));
        if self.nodes[n].fails {
            self.after(5_000, 300_000, Outer::Dies { n, life });
        }
        self.begin_checks(n, life, Checks::new(Origin::Started, now));
        self.plan_beat(n);
        self.drive(n);
    }

    /// The keeper is asked to end it; by a plan, or since it is not well.
    fn end_copy(&mut self, n: usize, ending: Ending) {
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        daemon.copy.stops = ending.is_planned;
        daemon.copy.asked = None;
        daemon.parts[0].own.process = Process::Stopping;
        let Some(copy) = self.nodes[n].copy.as_mut() else { return };
        copy.ending = Some(ending);
        let life = copy.life;
        self.after(ENDS_WITHIN.0, ENDS_WITHIN.1, Outer::Dies { n, life });
    }

    /// The keeper says that the copy is gone.
    pub(crate) fn on_ended_beside(&mut self, n: usize, inc: u32) {
        let now = self.nodes[n].clock.at(self.now);
        if !self.is_daemon(n, inc) || self.nodes[n].copy.is_some() {
            return;
        }
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        let (part, own) = (&mut daemon.parts[0], &mut daemon.copy);
        if part.own.process == Process::Starting {
            return;
        }
        if !std::mem::take(&mut own.stops) {
            part.own.starts_failed += 1;
            part.retry_at = now.plus(retry_after(part.own.starts_failed));
        }
        (part.own.process, part.own.serving) = (Process::Stopped, None);
        (own.asked, own.well_since) = (None, None);
        self.plan_beat(n);
        self.hub_changed(n);
    }

    pub(super) fn on_check(&mut self, n: usize, inc: u32, life: u64) {
        if !self.is_daemon(n, inc) || self.nodes[n].copy.as_ref().is_none_or(|it| it.life != life) {
            return;
        }
        let answer = if self.is_well(n) { Answer::Good } else { Answer::Bad };
        let now = self.nodes[n].clock.at(self.now);
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return };
        let (part, own) = (&mut daemon.parts[0], &mut daemon.copy);
        if own.asked != Some(life) {
            return;
        }
        let verdict = own.checks.answered(answer, &LIMITS, now);
        let pause = own.checks.pause(&LIMITS).as_micros() as Micros;
        match verdict {
            Verdict::Same => {}
            Verdict::Well => {
                part.own.serving = Some(part.own.promoted);
                own.well_since = Some(now);
                self.is_back(n);
                self.note(n, || "the copy is well".into());
                self.plan_beat(n);
                self.hub_changed(n);
            }
            Verdict::Unwell(failures) => {
                self.note(n, || format!("the copy is NOT WELL: {failures} checks failed"));
                self.end_copy(n, Ending::default());
                self.plan_beat(n);
                return self.hub_changed(n);
            }
        }
        let at = self.now + pause;
        self.push(at, Outer::Beside(Event::Check { n, inc, life }));
    }

    /// Its node has another file.
    pub(super) fn on_recipe(&mut self, n: usize, recipe: u64) {
        let node = &mut self.nodes[n];
        node.recipe = node.recipe.max(recipe);
        let Some(daemon) = node.daemon.as_mut() else { return };
        // What failed may be mended by it.
        daemon.parts[0].own.starts_failed = 0;
        daemon.parts[0].retry_at = node.clock.at(self.now);
        self.hub_changed(n);
    }

    /// What is decided by what is not so.
    fn spoil_copies(
        &self,
        n: usize,
        (facts, state): (&mut BTreeMap<NodeId, Observed<NodeFacts>>, &mut ServiceState),
        now: Timestamp,
    ) {
        let Some(mutation) = self.options.mutation else { return };
        let me = &self.nodes[n].id;
        if mutation == Mutation::TurnOfAll {
            state.copies.turn = Some(me.clone());
        }
        for (node, told) in facts.iter_mut() {
            let (mut it, age) = (told.last_known().clone(), told.age(now));
            match mutation {
                Mutation::StopAtOnce => it.doors.clear(),
                Mutation::ForgetDoors if node == me => {
                    it.links.values_mut().for_each(|link| {
                        if let Link::Never(age) = link {
                            *age = (*age).max(LOST_AFTER);
                        }
                    });
                }
                Mutation::StopTheLast if node != me => {
                    for own in it.instances.values_mut() {
                        own.process = Process::Primary;
                        (own.serving, own.withdrawn) = (Some(own.promoted), None);
                    }
                }
                Mutation::CountStale if node != me => {
                    *told = Observed::new(it, now);
                    continue;
                }
                _ => {}
            }
            *told = Observed::new(it, now.minus(age));
        }
    }
}
