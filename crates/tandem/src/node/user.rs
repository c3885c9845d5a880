//! Decides which user of the operating system an instance runs as.
//! In: what is written, who the daemon is. Out: a user, none for the daemon's own.
//! Tested by: below.

use crate::service::postgres::RunAs;
use tandem_core::ids::ServiceId;

/// Why there is no user to run an instance as.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such user.
    #[error(
        "service {service} shall run as user {user}, who does not exist; create the user, or set \
         run_as"
    )]
    NoUser {
        /// The service.
        service: ServiceId,
        /// The name.
        user: String,
    },
    /// Only root may run an instance as another user.
    #[error(
        "service {service} shall run as user {user}, but this daemon is user {uid} and not root; \
         start the daemon as {user} or as root, or remove run_as"
    )]
    OtherUser {
        /// The service.
        service: ServiceId,
        /// The name.
        user: String,
        /// Who the daemon is.
        uid: u32,
    },
}

/// PostgreSQL refuses to run as root; as a plain user it runs as that user, and as nobody else.
pub(super) fn run_as(service: &ServiceId, written: Option<&str>) -> Result<Option<RunAs>, Error> {
    let me = nix::unistd::geteuid();
    let is_root = me.is_root();
    let name = match (written, is_root) {
        (Some(name), _) => name,
        (None, true) => "postgres",
        (None, false) => return Ok(None),
    };
    let no_user = || Error::NoUser { service: service.clone(), user: name.into() };
    let user = nix::unistd::User::from_name(name).ok().flatten().ok_or_else(no_user)?;
    if !is_root && user.uid != me {
        let service = service.clone();
        return Err(Error::OtherUser { service, user: name.into(), uid: me.as_raw() });
    }
    Ok(is_root.then(|| RunAs { uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
}

/// The user and group of a command; none is the daemon's own.
pub(super) fn of_command(
    service: &ServiceId,
    written: Option<&str>,
) -> Result<Option<(u32, u32)>, Error> {
    if written.is_none() {
        return Ok(None);
    }
    Ok(run_as(service, written)?.map(|user| (user.uid, user.gid)))
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
            assert!(matches!(result, Err(Error::OtherUser { .. })), "{result:?}");
            assert_eq!(run_as(&service, Some(&own)).unwrap(), None);
        }
        let nobody = run_as(&service, Some("no_such_user_here"));
        assert!(matches!(nobody, Err(Error::NoUser { .. })), "{nobody:?}");
    }
}
