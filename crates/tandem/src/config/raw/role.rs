//! Reads how endpoints are asked that are PostgreSQL servers, as it was written.
//! In: a table. Out: `RoleCheck`.
//! Not here: what may be run (`valid/role.rs`).

use super::section::{Reading, Section};
use super::written::{Switch, Text};

#[derive(Debug)]
pub(in crate::config) struct RoleCheck {
    pub role: Text,
    pub user: Text,
    pub database: Text,
    pub password_file: Text,
}

pub(super) fn read(reading: &mut Reading<'_>, section: &mut Section<'_, '_>) -> Switch<RoleCheck> {
    let table = section.switch(reading, "postgres");
    table.map(|table| {
        let mut section = section.inner(table, ("postgres", "services.NAME.health.postgres"));
        let check = RoleCheck {
            role: section.text(reading, "role"),
            user: section.text(reading, "user"),
            database: section.text(reading, "database"),
            password_file: section.text(reading, "password_file"),
        };
        section.finish(reading);
        check
    })
}
