//! Talks to every database: what would be lost or weakened at a failover, for `doctor`.
//! Keeps: H11, H13 settings of roles, databases and functions that weaken a commit or hide that it
//! is weak, which the front door cannot see: they are not in what a client sends;
//! H40 what a promotion does not carry over.
//! Tested by: `tests/postgres_audit`.

use super::{Error, within};
use crate::service::postgres::Postgres;
use std::time::Duration;
use tandem_core::replication::primary_replica::settings::{COMMIT_SETTINGS, CommitSetting};

/// Something an owner should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A role or database lowers `synchronous_commit`, or hides the warning that a commit is not
    /// replicated with `client_min_messages`: its acknowledged commits can be lost (H11, H13).
    WeakCommit {
        /// Whose setting; empty is every role.
        role: String,
        /// In which database; empty is each.
        database: String,
        /// Which setting.
        setting: String,
        /// The value.
        value: String,
    },
    /// The same by a function: by its own setting, or in its body. A setting that its body makes
    /// stays until the transaction's commit (H11, H13).
    WeakFunction {
        /// Where.
        database: String,
        /// Its name, with its schema.
        function: String,
        /// Which setting.
        setting: String,
    },
    /// Tables that a failover empties (H40).
    UnloggedTables {
        /// Where.
        database: String,
        /// How many.
        count: i64,
    },
    /// Prepared transactions hold locks until somebody ends them, also after a failover (H40).
    PreparedTransactions {
        /// Where.
        database: String,
        /// How many.
        count: i64,
    },
    /// A logical slot stays behind at a failover (H24).
    LogicalSlot {
        /// Its name.
        name: String,
    },
    /// Damage on disk goes unnoticed.
    NoChecksums,
}

const PREPARED: &str = "SELECT database::text, count(*) FROM pg_prepared_xacts GROUP BY 1";
const LOGICAL: &str = "SELECT slot_name::text FROM pg_replication_slots \
    WHERE slot_type = 'logical' AND NOT temporary";
const DATABASES: &str = "SELECT datname::text FROM pg_database WHERE datallowconn ORDER BY 1";
const UNLOGGED: &str = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relpersistence = 'u'";

/// `VALUES` of settings, each with a pattern of the words that are not among its good values.
fn weakening() -> String {
    let row = |setting: &CommitSetting| {
        let (name, good) = (setting.name, setting.good.join("|"));
        format!(r"('{name}', '(?!({good}|default)\M)\w+')")
    };
    format!("(VALUES {}) weak(name, value)", COMMIT_SETTINGS.map(row).join(", "))
}

fn weak_settings() -> String {
    format!(
        r"SELECT coalesce(r.rolname, '')::text, coalesce(d.datname, '')::text,
            split_part(setting, '=', 1), split_part(setting, '=', 2)
        FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) setting
        JOIN {} ON setting ~* ('^' || weak.name || '=' || weak.value || '$')
        LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase",
        weakening()
    )
}

/// Bodies are searched for what is written plainly; what they put together is not found.
fn weak_functions() -> String {
    format!(
        r"SELECT DISTINCT format('%I.%I', n.nspname, p.proname), weak.name
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace CROSS JOIN {}
        WHERE EXISTS (SELECT FROM unnest(p.proconfig) setting
            WHERE setting ~* ('^' || weak.name || '=' || weak.value || '$'))
        OR p.prosrc ~* ('\mset\s+(local\s+|session\s+)?' || weak.name
            || '\s*(=|\mto\M)[\s'']*' || weak.value || '\M')
        OR p.prosrc ~* ('set_config\s*\([\s'']*' || weak.name || '''+\s*,[\s'']*'
            || weak.value || '''')
        ORDER BY 1, 2",
        weakening()
    )
}

impl Postgres {
    /// Looks for what would surprise an owner at a failover.
    ///
    /// # Errors
    /// Those of a connection.
    pub async fn audit(&self, deadline: Duration) -> Result<Vec<Finding>, Error> {
        within("auditing", deadline, async {
            let mut session = self.connect().await?;
            let mut findings = Vec::new();
            for row in session.all("reading settings of roles", &weak_settings()).await? {
                let (role, database) = (row.get(0), row.get(1));
                let (setting, value) = (row.get(2), row.get(3));
                findings.push(Finding::WeakCommit { role, database, setting, value });
            }
            for row in session.all("reading prepared transactions", PREPARED).await? {
                let (database, count) = (row.get(0), row.get(1));
                findings.push(Finding::PreparedTransactions { database, count });
            }
            for row in session.all("reading logical slots", LOGICAL).await? {
                findings.push(Finding::LogicalSlot { name: row.get(0) });
            }
            if session.show("data_checksums").await? != "on" {
                findings.push(Finding::NoChecksums);
            }
            let weak_functions = weak_functions();
            for row in session.all("reading databases", DATABASES).await? {
                let database: String = row.get(0);
                let mut there = self.connect_to(&database).await?;
                let count = there.one("counting unlogged tables", UNLOGGED).await?.get(0);
                for row in there.all("reading functions", &weak_functions).await? {
                    let (database, function) = (database.clone(), row.get(0));
                    let setting = row.get(1);
                    findings.push(Finding::WeakFunction { database, function, setting });
                }
                if count > 0 {
                    findings.push(Finding::UnloggedTables { database, count });
                }
            }
            Ok(findings)
        })
        .await
    }
}
