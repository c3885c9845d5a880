//! Drives the file that a copy may read what it owns from, instead of asking, as the shell does.
//! Keeps: INV-13 what is released was put out first. The file is there while the daemon is not; it
//! goes with the machine's power, as its name does.

use crate::singleton::{Event, Mutation, World};
use std::collections::BTreeMap;
use std::rc::Rc;
use tandem_core::clustering::active_active::holder::{Holding, Shown};
use tandem_core::ids::{Epoch, Term};

/// What a copy is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Epochs up to that one were of an earlier table.
    pub before: Epoch,
    pub all: Vec<Holding>,
}

/// What a copy that was started for a term reads.
pub(crate) type Files = BTreeMap<Term, Rc<Told>>;

/// What a daemon knows of the file.
#[derive(Debug, Default)]
pub(crate) struct PutOut {
    /// Grows with each change of what is shown.
    version: u64,
    shown: Option<Rc<Told>>,
    term: Term,
    written: Option<u64>,
    /// What was put out last: for which term, in which sitting.
    told: Option<(Term, Term, Rc<Told>)>,
    writing: bool,
}

impl World {
    /// What the copy may know now: its daemon is asked.
    pub(crate) fn show(&mut self, n: usize) -> Option<Shown> {
        let shown = self.look(n, |holder, view, now| holder.show(view, now))?;
        let put_out = &mut self.nodes[n].daemon.as_mut()?.put_out;
        match &shown {
            Shown::NotYet => put_out.shown = None,
            Shown::These { term, before, partitions, .. } => {
                let told = Told { before: *before, all: partitions.clone() };
                let is_same = put_out.shown.as_deref() == Some(&told);
                if !is_same || put_out.term != *term {
                    put_out.version += 1;
                    put_out.term = *term;
                    put_out.shown = Some(Rc::new(told));
                }
            }
        }
        Some(shown)
    }

    /// Whether the file says what is shown; it is written if it does not.
    pub(crate) fn is_put_out(&mut self, n: usize) -> bool {
        let inc = self.nodes[n].daemons;
        let Some(daemon) = self.nodes[n].daemon.as_mut() else { return false };
        let put_out = &mut daemon.put_out;
        let Some(shown) = put_out.shown.clone() else { return false };
        let (version, term) = (put_out.version, put_out.term);
        if put_out.written == Some(version) {
            return true;
        }
        if !std::mem::replace(&mut put_out.writing, true) {
            // Some disks stall.
            let stalls = !self.options.calm && self.rng.chance(10);
            let most = if stalls { 4_000_000 } else { 15_000 };
            self.after(500, most, Event::PutOut { n, inc, version, term, shown });
        }
        self.options.mutation == Some(Mutation::ReleaseBeforeFile)
    }

    pub(crate) fn on_put_out(
        &mut self,
        (n, inc): (usize, u32),
        (version, term): (u64, Term),
        shown: &Rc<Told>,
    ) {
        if !self.is_daemon(n, inc) {
            return;
        }
        let agreed = self.agreed(n);
        let seat = self.services.get(n).and_then(|seat| agreed.services.get(seat));
        let since = seat.map(|seat| seat.sitting).unwrap_or_default();
        let files = &mut self.nodes[n].files;
        files.retain(|term, _| *term >= since);
        files.values_mut().for_each(|file| *file = shown.clone());
        files.insert(term, shown.clone());
        self.look(n, |holder, view, _| holder.put_out(&shown.all, view));
        if let Some(daemon) = self.nodes[n].daemon.as_mut() {
            daemon.put_out.writing = false;
            daemon.put_out.written = Some(version);
            daemon.put_out.told = Some((term, since, shown.clone()));
        }
        self.hub_changed(n);
    }

    /// What a daemon answers: what was put out for the copy that is there, and nothing newer.
    pub(crate) fn answer(&mut self, n: usize) -> Option<Rc<Told>> {
        let Shown::These { term, .. } = self.show(n)? else { return None };
        let since = self.agreed(n).services.get(self.services.get(n)?)?.sitting;
        let told = self.nodes[n].daemon.as_ref()?.put_out.told.as_ref()?;
        (told.0 == term && told.1 == since).then(|| told.2.clone())
    }

    /// What a copy finds that reads the file.
    pub(crate) fn read_file(&self, n: usize) -> Option<Rc<Told>> {
        let node = &self.nodes[n];
        let copy = node.copy.as_ref().filter(|copy| copy.reads_file)?;
        node.files.get(&copy.term).cloned()
    }
}
