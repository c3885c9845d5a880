//! Talks to every database: what would be lost or weakened at a failover, for `doctor`.
//! Keeps: H11, H13 settings of roles, databases and functions that weaken a commit or hide that it
//! is weak, which the front door cannot see: they are not in what a client sends;
//! H40 what a promotion does not carry over.
//! Tested by: `tests/postgres_adapter.rs`.

use super::{Error, within};
use crate::service::postgres::Postgres;
use std::time::Duration;

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

const WEAK: &str = "SELECT coalesce(r.rolname, '')::text, coalesce(d.datname, '')::text, \
    split_part(setting, '=', 1), split_part(setting, '=', 2) \
    FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) setting \
    LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase \
    WHERE (split_part(setting, '=', 1) = 'synchronous_commit' \
    AND lower(split_part(setting, '=', 2)) NOT IN ('on', 'remote_apply', 'true', 'yes', '1')) \
    OR (split_part(setting, '=', 1) = 'client_min_messages' \
    AND lower(split_part(setting, '=', 2)) IN ('error', 'fatal', 'panic'))";
/// Bodies are searched for what is written plainly; what they put together is not found.
const WEAK_FUNCTIONS: &str = r"SELECT DISTINCT format('%I.%I', n.nspname, p.proname), s.name
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace CROSS JOIN (VALUES
        ('synchronous_commit', '(off|local|remote_write|false|no|0)'),
        ('client_min_messages', '(error|fatal|panic)')) s(name, weak)
    WHERE EXISTS (SELECT FROM unnest(p.proconfig) setting
        WHERE setting ~* ('^' || s.name || '=' || weak || '$'))
    OR p.prosrc ~* ('\mset\s+(local\s+|session\s+)?' || s.name
        || '\s*(=|\mto\M)[\s'']*' || weak || '\M')
    OR p.prosrc ~* ('set_config\s*\([\s'']*' || s.name || '''+\s*,[\s'']*' || weak || '''')
    ORDER BY 1, 2";
const PREPARED: &str = "SELECT database::text, count(*) FROM pg_prepared_xacts GROUP BY 1";
const LOGICAL: &str = "SELECT slot_name::text FROM pg_replication_slots \
    WHERE slot_type = 'logical' AND NOT temporary";
const DATABASES: &str = "SELECT datname::text FROM pg_database WHERE datallowconn ORDER BY 1";
const UNLOGGED: &str = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relpersistence = 'u'";

impl Postgres {
    /// Looks for what would surprise an owner at a failover.
    ///
    /// # Errors
    /// Those of a connection.
    pub async fn audit(&self, deadline: Duration) -> Result<Vec<Finding>, Error> {
        within("auditing", deadline, async {
            let mut session = self.connect().await?;
            let mut findings = Vec::new();
            for row in session.all("reading settings of roles", WEAK).await? {
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
            for row in session.all("reading databases", DATABASES).await? {
                let database: String = row.get(0);
                let mut there = self.connect_to(&database).await?;
                let count = there.one("counting unlogged tables", UNLOGGED).await?.get(0);
                for row in there.all("reading functions", WEAK_FUNCTIONS).await? {
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
