//! Talks about logging in to a service: the password of one of its roles.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Print the password of a service's role, from a node's own folder
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example:
  tandem password orders --dir /var/lib/tandem            of role app, for every door
  tandem password orders --dir /var/lib/tandem --pgpass   a line for ~/.pgpass
  tandem password orders --dir /var/lib/tandem --role superuser

Then: PGPASSWORD=… psql -h NODE -p 5432 -U app app
The superuser is let in on the node itself only: psql -h DIR/services/orders/run -p 6432 -U tandem \
postgres")]
pub struct Arguments {
    /// Which service
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// The node's own folder; read as its owner
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Whose password
    #[arg(long, value_enum, default_value = "app")]
    pub role: Role,
    /// As a line of ~/.pgpass, for any host
    #[arg(long)]
    pub pgpass: bool,
}

/// The roles that people log in as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// The application: role and database app
    App,
    /// Tandem's own superuser: role tandem, over the socket of the node
    Superuser,
}
