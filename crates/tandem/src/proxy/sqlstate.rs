//! Talks to clients about what went wrong, in PostgreSQL's own words: builds ErrorResponse
//! messages.
//! In: a SQLSTATE and what, because, try. Out: bytes of one message.
//! Not here: when which is sent (`hold.rs`, `session.rs`).
//! Tested by: below, and by psql and tokio-postgres in `tests/`.

use std::borrow::Cow;

/// The codes that this door uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SqlState {
    /// 57P03: nothing was executed, try again later.
    CannotConnectNow,
    /// 53300: a bound of the door.
    TooManyConnections,
    /// 57P01: the session ends, nothing was in flight.
    AdminShutdown,
    /// 40003: something was in flight, and nobody here knows what became of it. Not 08007, which
    /// several drivers take as a licence to run it again (H43).
    StatementCompletionUnknown,
    /// 08P01: not the protocol.
    ProtocolViolation,
    /// 0A000: a protocol version that PostgreSQL itself refuses.
    FeatureNotSupported,
    /// 22023: a startup parameter that this service does not allow.
    InvalidParameterValue,
}

impl SqlState {
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::CannotConnectNow => "57P03",
            Self::TooManyConnections => "53300",
            Self::AdminShutdown => "57P01",
            Self::StatementCompletionUnknown => "40003",
            Self::ProtocolViolation => "08P01",
            Self::FeatureNotSupported => "0A000",
            Self::InvalidParameterValue => "22023",
        }
    }
}

/// The last message of a session: says what, because, try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fatal {
    pub(super) state: SqlState,
    /// What.
    pub(super) message: String,
    /// Because.
    pub(super) detail: String,
    /// Try.
    pub(super) hint: Cow<'static, str>,
}

impl Fatal {
    /// The message as it goes over the wire.
    pub(super) fn encode(&self) -> Vec<u8> {
        let fields: [(u8, &str); 6] = [
            (b'S', "FATAL"),
            (b'V', "FATAL"),
            (b'C', self.state.code()),
            (b'M', &self.message),
            (b'D', &self.detail),
            (b'H', &self.hint),
        ];
        let mut body = Vec::with_capacity(256);
        for (tag, text) in fields.into_iter().filter(|(_, text)| !text.is_empty()) {
            body.push(tag);
            body.extend(text.bytes().filter(|byte| *byte != 0));
            body.push(0);
        }
        body.push(0);
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(body.len() + 5);
        bytes.push(b'E');
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.append(&mut body);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::{Fatal, SqlState};

    #[test]
    fn a_message_is_framed_and_its_text_cannot_break_the_frame() {
        let bytes = Fatal {
            state: SqlState::CannotConnectNow,
            message: "a\0b".into(),
            detail: String::new(),
            hint: "c".into(),
        }
        .encode();
        let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
        assert_eq!(bytes.len(), length + 1);
        assert_eq!(&bytes[5..], b"SFATAL\0VFATAL\0C57P03\0Mab\0Hc\0\0");
    }
}
