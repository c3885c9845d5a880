//! Reads the keys of a service of kind `postgres`, as they were written.
//! In: its table. Out: `Postgres`.
//! Not here: what may be run (`valid/service.rs`).

use super::section::{Reading, Section};
use super::written::{Number, Scalar, Text};
use toml::Spanned;

#[derive(Debug)]
pub(in crate::config) struct Postgres {
    pub name: Spanned<String>,
    pub durability: Text,
    pub acks: Number,
    pub async_lag_max: Text,
    pub async_delay_max: Text,
    pub listen: Option<Spanned<Scalar>>,
    pub read_listen: Option<Spanned<Scalar>>,
    pub read_lag_max: Text,
    pub read_balance: Text,
    pub port: Number,
    pub hold_max: Text,
    pub held_max: Number,
    pub sessions_max: Number,
    pub bin_dir: Text,
    pub data_dir: Text,
    pub ballast: Text,
    pub run_as: Text,
    pub hba: Vec<Spanned<String>>,
    pub settings: Vec<(Spanned<String>, Spanned<Scalar>)>,
    pub timing: Timing,
}

#[derive(Debug, Default)]
pub(in crate::config) struct Timing {
    pub heartbeat: Text,
    pub suspicion: Text,
    pub lease: Text,
    pub drift_margin: Text,
    pub stable_after: Text,
    pub rejoin_patience: Text,
}

pub(super) fn read(
    reading: &mut Reading<'_>,
    name: &Spanned<String>,
    mut section: Section<'_, '_>,
) -> Postgres {
    let service = Postgres {
        name: name.clone(),
        durability: section.text(reading, "durability"),
        acks: section.number(reading, "acks"),
        async_lag_max: section.text(reading, "async_lag_max"),
        async_delay_max: section.text(reading, "async_delay_max"),
        listen: section.listen(reading, "listen"),
        read_listen: section.listen(reading, "read_listen"),
        read_lag_max: section.text(reading, "read_lag_max"),
        read_balance: section.text(reading, "read_balance"),
        port: section.number(reading, "port"),
        hold_max: section.text(reading, "hold_max"),
        held_max: section.number(reading, "held_max"),
        sessions_max: section.number(reading, "sessions_max"),
        bin_dir: section.text(reading, "bin_dir"),
        data_dir: section.text(reading, "data_dir"),
        ballast: section.text(reading, "ballast"),
        run_as: section.text(reading, "run_as"),
        hba: section.texts(reading, "hba"),
        settings: section.settings(reading, "postgresql"),
        timing: section.table(reading, "timing").map_or_else(Timing::default, |table| {
            timing(reading, section.inner(table, ("timing", "services.NAME.timing")))
        }),
    };
    section.finish(reading);
    service
}

fn timing(reading: &mut Reading<'_>, mut section: Section<'_, '_>) -> Timing {
    let timing = Timing {
        heartbeat: section.text(reading, "heartbeat"),
        suspicion: section.text(reading, "suspicion"),
        lease: section.text(reading, "lease"),
        drift_margin: section.text(reading, "drift_margin"),
        stable_after: section.text(reading, "stable_after"),
        rejoin_patience: section.text(reading, "rejoin_patience"),
    };
    section.finish(reading);
    timing
}
