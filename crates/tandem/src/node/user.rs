//! Decides which user of the operating system an instance runs as.
//! In: what is written, who the daemon is. Out: a user, none for the daemon's own.
//! Tested by: below.

use crate::runtime::user;
use crate::service::postgres::RunAs;
use tandem_core::ids::ServiceId;

/// Why there is no user to run an instance as.
#[derive(Debug, thiserror::Error)]
#[error("service {service}: {source}")]
pub struct Error {
    /// The service.
    pub service: ServiceId,
    /// Why not.
    pub source: user::Error,
}

/// PostgreSQL refuses to run as root; as a plain user it runs as that user, and as nobody else.
pub(super) fn run_as(service: &ServiceId, written: Option<&str>) -> Result<Option<RunAs>, Error> {
    let is_root = nix::unistd::geteuid().is_root();
    let name = match (written, is_root) {
        (Some(name), _) => name,
        (None, true) => "postgres",
        (None, false) => return Ok(None),
    };
    let failed = |source| Error { service: service.clone(), source };
    let found = user::find(name).map_err(failed)?;
    Ok(found.map(|user| RunAs { uid: user.uid, gid: user.gid }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_runs_instances_as_somebody_else() {
        let me = nix::unistd::geteuid();
        let own = nix::unistd::User::from_uid(me).unwrap().unwrap().name;
        let service = ServiceId::from("orders");
        let other = if own == "daemon" { "bin" } else { "daemon" };
        let result = run_as(&service, Some(other));
        if me.is_root() {
            assert_ne!(result.unwrap().unwrap().uid, 0);
        } else {
            assert!(matches!(result.unwrap_err().source, user::Error::OtherUser { .. }));
            assert_eq!(run_as(&service, Some(&own)).unwrap(), None);
        }
        let nobody = run_as(&service, Some("no_such_user_here")).unwrap_err();
        assert!(matches!(nobody.source, user::Error::NoUser(_)), "{nobody:?}");
    }
}
