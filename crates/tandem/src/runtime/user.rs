//! Reads who the users of this machine are.
//! In: a name. Out: its ids and all its groups; none for this process's own user, who needs no
//! change.
//! It may wait for a directory service: not for a task that others wait for.
//! Tested by: below.

use nix::unistd::{User as Found, geteuid, getgrouplist};
use std::ffi::CString;

/// Somebody that a process can become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Main group.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
}

/// Why nothing can run as that user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such user.
    #[error("user {0} does not exist on this machine; create the user, or set run_as")]
    NoUser(String),
    /// Only root may run something as another user.
    #[error(
        "this daemon is user {me} and not root, so nothing can run as {user}; start it as {user} \
         or as root, or remove run_as"
    )]
    OtherUser {
        /// The name.
        user: String,
        /// Who the daemon is.
        me: u32,
    },
}

/// The user of that name, if this process has to become it.
///
/// # Errors
/// It cannot.
pub fn find(name: &str) -> Result<Option<User>, Error> {
    let me = geteuid();
    let no_user = || Error::NoUser(name.to_owned());
    let user = Found::from_name(name).ok().flatten().ok_or_else(no_user)?;
    if !me.is_root() {
        let other = Error::OtherUser { user: name.to_owned(), me: me.as_raw() };
        return if user.uid == me { Ok(None) } else { Err(other) };
    }
    let c_name = CString::new(name).map_err(|_zero| no_user())?;
    // Without them it is still that user, with fewer rights.
    let groups = getgrouplist(&c_name, user.gid).unwrap_or_default();
    let groups = groups.into_iter().map(|group| group.as_raw()).collect();
    Ok(Some(User { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_becomes_somebody_else_and_then_with_all_groups() {
        let me = geteuid();
        let own = Found::from_uid(me).unwrap().unwrap().name;
        let other = if own == "daemon" { "bin" } else { "daemon" };
        if me.is_root() {
            let user = find(other).unwrap().unwrap();
            assert!(user.uid != 0 && user.groups.contains(&user.gid), "{user:?}");
        } else {
            assert!(matches!(find(other), Err(Error::OtherUser { .. })));
            assert_eq!(find(&own), Ok(None));
        }
        assert_eq!(find("no_such_user_here"), Err(Error::NoUser("no_such_user_here".into())));
    }
}
