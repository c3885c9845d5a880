//! Talks to whoever wants to log in: the password of a role, from the node's own folder.
//! In: the folder, a service, a role. Out: the password, a line of `.pgpass`, or JSON.
//! It is printed and goes nowhere else: no log, no event.
//! Not here: where it comes from (`node/login.rs`).
//! Tested by: `tests/members`.

use crate::cli::Error;
use crate::cli::run::password::{Arguments, Role};
use crate::cli::terminal::Terminal;
use crate::node::login::{self as node, Login};
use crate::node::problem;
use crate::telemetry::codes;
use crate::telemetry::problem::Problem;
use serde_json::json;
use tandem_core::ids::ServiceId;

pub(super) fn password(arguments: &Arguments, terminal: &mut Terminal) -> Result<(), Error> {
    let Arguments { service, dir, role, pgpass } = arguments;
    let role = match role {
        Role::App => node::Role::App,
        Role::Superuser => node::Role::Superuser,
    };
    let service = ServiceId::new(service.as_str());
    let login = node::login(dir, &service, role).map_err(|error| refused(&service, error))?;
    let Login { user, database, socket, port, password } = &login;
    let password = password.reveal();
    let socket = socket.as_ref().map(|socket| socket.display().to_string());
    let host = socket.as_deref().unwrap_or("*");
    let line = format!("{}:{port}:{database}:{user}:{password}", escaped(host));
    if terminal.wants_json() {
        return Ok(terminal.json(&json!({
            "service": service,
            "user": user,
            "database": database,
            "socket": socket,
            "port": port,
            "password": password,
            "pgpass": line,
        }))?);
    }
    Ok(terminal.line(if *pgpass { &line } else { password })?)
}

/// What separates fields of `.pgpass` is escaped in them.
fn escaped(field: &str) -> String {
    field.replace('\\', "\\\\").replace(':', "\\:")
}

fn refused(service: &ServiceId, error: node::Error) -> Problem {
    let what = format!("there is no password for {service}");
    let (code, advice) = match &error {
        node::Error::Identity(error) => return problem::of_identity(error),
        node::Error::File { .. } | node::Error::Config { .. } => {
            (codes::CANNOT_READ_FILE, "check --dir, and who may read it")
        }
        node::Error::NotStarted { .. } => {
            (codes::NO_SUCH_SERVICE, "start the node first: its folder then holds what is agreed")
        }
        node::Error::NoSuchService { .. } => (codes::NO_SUCH_SERVICE, "tandem status lists them"),
    };
    Problem::caused_by(code, what, &error, advice)
}
