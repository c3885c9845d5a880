//! Decides from a server's first bytes whether it took the session or is not ready for any.
//! In: what arrived since the StartupMessage was sent. Out: `Answer`.
//! Keeps: H43, only what was provably not begun may be tried again: an error before the first
//! authentication message is.
//! Tested by: below, `tests/hold.rs`.

/// An ErrorResponse longer than this is passed on rather than looked at.
pub(in crate::proxy) const LOOKED_AT_MAX: usize = 8 * 1024;

/// What the first bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Answer {
    /// Cannot be told yet.
    Incomplete,
    /// The server talks to the client: pass everything on.
    Taken,
    /// The server starts, stops or recovers; this is its SQLSTATE.
    NotNow([u8; 5]),
}

/// Reads the first bytes.
pub(in crate::proxy) fn judge(mut bytes: &[u8]) -> Answer {
    loop {
        let Some((head, rest)) = bytes.split_first_chunk::<5>() else {
            return Answer::Incomplete;
        };
        let [kind, length @ ..] = *head;
        let body = (u32::from_be_bytes(length) as usize).saturating_sub(4);
        // A server that speaks an older minor version says so ('v') before anything else.
        if !matches!(kind, b'v' | b'N' | b'E') || body > LOOKED_AT_MAX {
            return Answer::Taken;
        }
        let Some((body, rest)) = rest.split_at_checked(body) else {
            return Answer::Incomplete;
        };
        if kind == b'E' {
            return match sqlstate(body) {
                Some(state @ (b"57P01" | b"57P02" | b"57P03")) => Answer::NotNow(*state),
                _ => Answer::Taken,
            };
        }
        bytes = rest;
    }
}

fn sqlstate(body: &[u8]) -> Option<&[u8; 5]> {
    let field = body.split(|byte| *byte == 0).find(|field| field.first() == Some(&b'C'))?;
    field.get(1..)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::{Answer, LOOKED_AT_MAX, judge};

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind][..], &length.to_be_bytes(), body].concat()
    }

    #[test]
    fn h43_only_errors_before_authentication_that_will_pass_are_retried() {
        let starting = message(b'E', b"SFATAL\0C57P03\0Mstarting\0\0");
        assert_eq!(judge(&starting), Answer::NotNow(*b"57P03"));
        let negotiated = [message(b'v', &[0; 8]), starting.clone()].concat();
        assert_eq!(judge(&negotiated), Answer::NotNow(*b"57P03"));
        assert_eq!(judge(&message(b'E', b"SFATAL\0C28P01\0Mno\0\0")), Answer::Taken);
        assert_eq!(judge(&[message(b'R', &[0; 4]), starting].concat()), Answer::Taken);
    }

    #[test]
    fn any_cut_of_a_message_is_incomplete_and_nonsense_is_passed_on() {
        let starting = message(b'E', b"SFATAL\0C57P03\0Mstarting\0\0");
        for end in 0..starting.len() {
            assert_eq!(judge(&starting[..end]), Answer::Incomplete, "{end}");
        }
        assert_eq!(judge(b"E\xff\xff\xff\xff"), Answer::Taken);
        assert_eq!(judge(&message(b'E', &vec![b'x'; LOOKED_AT_MAX + 1])), Answer::Taken);
        assert_eq!(judge(&message(b'E', b"")), Answer::Taken);
        assert_eq!(judge(b"E\0\0\0\0"), Answer::Taken);
    }
}
