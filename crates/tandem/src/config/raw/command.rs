//! Reads the keys of a service that is a command, as they were written.
//! In: its table. Out: `Command`.
//! Not here: what may be run (`valid/command.rs`).

use super::balanced::{self, Balanced, Shared};
use super::key::{self, Key};
use super::section::{Reading, Section};
use super::written::{Flag, Number, Scalar, Switch, Text};
use tandem_core::pairing::Kind;
use toml::Spanned;

const PARTITION_KEY: (&str, &str) = ("partition_key", "services.NAME.partition_key");

#[derive(Debug)]
pub(in crate::config) struct Command {
    pub name: Spanned<String>,
    pub command: Vec<Spanned<String>>,
    pub listen: Option<Spanned<Scalar>>,
    pub port: Number,
    pub run_as: Text,
    pub cwd: Text,
    pub env: Vec<(Spanned<String>, Spanned<String>)>,
    pub limits: Switch<Limits>,
    pub stop: Vec<Spanned<String>>,
    pub stop_max: Text,
    pub health: Switch<CommandHealth>,
    pub on_start: Vec<Spanned<String>>,
    pub on_stop: Vec<Spanned<String>>,
    pub hook_max: Text,
    pub log_max: Text,
    pub lease: Text,
    pub hold_max: Text,
    pub sessions_max: Number,
    pub replicas: Number,
    pub partitions: Number,
    pub release_max: Text,
    pub on_partitions: Vec<Spanned<String>>,
    /// What says to which partition a request belongs.
    pub partition_key: Key,
    pub drain_max: Text,
    pub door: Text,
    /// The door to copies that run side by side.
    pub balanced: Balanced,
}

#[derive(Debug, Default)]
pub(in crate::config) struct Limits {
    pub nofile: Number,
    pub core: Number,
    pub nproc: Number,
    pub memlock: Number,
    pub address_space: Number,
    pub fsize: Number,
}

#[derive(Debug, Default)]
pub(in crate::config) struct CommandHealth {
    pub http: Text,
    pub tcp: Flag,
    pub exec: Vec<Spanned<String>>,
    pub interval: Text,
    pub timeout: Text,
    pub fall: Number,
    pub rise: Number,
    pub grace: Text,
}

pub(super) fn read(
    reading: &mut Reading<'_>,
    name: &Spanned<String>,
    mut section: Section<'_, '_>,
) -> Command {
    let listen = section.listen(reading, "listen");
    let hold_max = section.text(reading, "hold_max");
    let sessions_max = section.number(reading, "sessions_max");
    let door = section.text(reading, "door");
    let is_http = door.as_ref().is_some_and(|door| door.get_ref() == "http");
    // What every command has is checked as such, once.
    let shared = Shared { name: name.clone(), listen: None, hold_max: None, sessions_max: None };
    let kind = if is_http { Kind::Http } else { Kind::Tcp };
    let service = Command {
        balanced: balanced::door(reading, shared, &mut section, kind),
        replicas: section.number(reading, "replicas"),
        partitions: section.number(reading, "partitions"),
        release_max: section.text(reading, "release_max"),
        on_partitions: section.texts(reading, "on_partitions"),
        partition_key: key::read(reading, &mut section, PARTITION_KEY),
        drain_max: section.text(reading, "drain_max"),
        door,
        name: name.clone(),
        command: section.texts(reading, "command"),
        listen,
        port: section.number(reading, "port"),
        run_as: section.text(reading, "run_as"),
        cwd: section.text(reading, "cwd"),
        env: section.texts_by_name(reading, "env"),
        limits: section
            .switch(reading, "limits")
            .map(|table| limits(reading, section.inner(table, ("limits", "services.NAME.limits")))),
        stop: section.texts(reading, "stop"),
        stop_max: section.text(reading, "stop_max"),
        health: section
            .switch(reading, "health")
            .map(|table| health(reading, section.inner(table, ("health", "services.NAME.health")))),
        on_start: section.texts(reading, "on_start"),
        on_stop: section.texts(reading, "on_stop"),
        hook_max: section.text(reading, "hook_max"),
        log_max: section.text(reading, "log_max"),
        lease: section.text(reading, "lease"),
        hold_max,
        sessions_max,
    };
    section.finish(reading);
    service
}

fn limits(reading: &mut Reading<'_>, mut section: Section<'_, '_>) -> Limits {
    let limits = Limits {
        nofile: section.number(reading, "nofile"),
        core: section.number(reading, "core"),
        nproc: section.number(reading, "nproc"),
        memlock: section.number(reading, "memlock"),
        address_space: section.number(reading, "address_space"),
        fsize: section.number(reading, "fsize"),
    };
    section.finish(reading);
    limits
}

fn health(reading: &mut Reading<'_>, mut section: Section<'_, '_>) -> CommandHealth {
    let health = CommandHealth {
        http: section.text(reading, "http"),
        tcp: section.flag(reading, "tcp"),
        exec: section.texts(reading, "exec"),
        interval: section.text(reading, "interval"),
        timeout: section.text(reading, "timeout"),
        fall: section.number(reading, "fall"),
        rise: section.number(reading, "rise"),
        grace: section.text(reading, "grace"),
    };
    section.finish(reading);
    health
}
