//! Decides whether all is as it shall be: nothing runs twice, ever; once healed, everything runs.
//! Keeps: INV-12, INV-13, by looking after every step.

use super::{Event, What, World, index, name};
use crate::event::Micros;
use tandem_core::cluster::state::Phase;

/// After this much healed time it must run, and stay.
const HEALED_WITHIN: Micros = 45_000_000;
/// How long it must run undisturbed to count as healed.
const STAYS_FOR: Micros = 2_000_000;

impl World {
    pub(super) fn check(&mut self) {
        match self.options.what {
            What::Alone => {}
            What::Divided(_) => return self.check_partitions(),
            What::Beside => return self.check_beside(),
        }
        let running = self.runs_on();
        if running.len() > 1 {
            let names: Vec<&str> = running.into_iter().map(name).collect();
            self.violate(format!("INV-12: copies run on {}", names.join(" and ")));
        }
    }

    pub(super) fn heal(&mut self) {
        self.mend_all();
        self.healed_at = Some(self.now);
        self.push(self.now + 250_000, Event::Judge);
    }

    fn what_is_missing(&self) -> Option<String> {
        if let Some(work) = &self.work {
            let missing = self.what_is_missing_of(work);
            return missing.or_else(|| self.what_is_missing_of_keys());
        }
        if self.is_beside() {
            return self.what_is_missing_beside();
        }
        let state = self.agreement.last().services.get(&self.services[0])?;
        let Some(appointment) = &state.appointment else { return Some("nobody appointed".into()) };
        if state.switchover.is_some() || appointment.phase != Phase::Active {
            return Some(format!("{} is not confirmed", appointment.primary));
        }
        let holder = index(&appointment.primary);
        if let Some(better) = self.better_place(holder) {
            return Some(format!("runs on {holder}, and {better} is better"));
        }
        let running = self.runs_on();
        (running != [holder]).then(|| format!("runs on {running:?}, appointed {holder}"))
    }

    pub(super) fn judge(&mut self) {
        let missing = self.what_is_missing();
        let since = self.healed_at.unwrap_or(self.now);
        if missing.is_none() {
            let well_since = *self.well_since.get_or_insert(self.now);
            self.served = self.now >= well_since + STAYS_FOR;
        } else {
            self.well_since = None;
        }
        if self.now > since + HEALED_WITHIN {
            match missing.filter(|_| self.options.mutation.is_none()) {
                Some(missing) => self.violate(format!("liveness: after healing: {missing}")),
                None => self.served = true,
            }
        }
        self.resume();
        self.push(self.now + 100_000, Event::Judge);
    }
}
