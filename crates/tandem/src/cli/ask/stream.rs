//! Talks to an event stream: cuts bytes into server-sent events.
//! In: the body of an answer. Out: the JSON of each event, and its number.
//! Limits: an event of more than `EVENT_BYTES_MAX` ends the stream, and so does a silence longer
//! than `SILENCE_MAX`, in which the API would have sent three signs of life.
//! Tested by: below, and `cli/tests`.

use crate::telemetry::codes;
use crate::telemetry::problem::{Problem, chain};
use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;
use std::time::Duration;

const EVENT_BYTES_MAX: usize = 1 << 20;
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// Events as they arrive.
#[derive(Debug)]
pub struct EventStream {
    body: Incoming,
    parser: Parser,
}

impl EventStream {
    /// Reads the body of an answer.
    pub fn new(body: Incoming) -> Self {
        Self { body, parser: Parser::default() }
    }

    /// The next event; none when the node ended the stream.
    ///
    /// # Errors
    /// The stream broke off, or is not one of events.
    pub async fn next(&mut self) -> Result<Option<Value>, Problem> {
        loop {
            if let Some(data) = self.parser.event()? {
                return serde_json::from_str(&data).map(Some).map_err(|e| broken(&e.to_string()));
            }
            let frame = tokio::time::timeout(SILENCE_MAX, self.body.frame())
                .await
                .map_err(|_| broken("nothing came for too long"))?;
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref() {
                        self.parser.bytes.extend_from_slice(bytes);
                    }
                }
                Some(Err(error)) => return Err(broken(&chain(&error))),
            }
        }
    }
}

#[derive(Debug, Default)]
struct Parser {
    bytes: BytesMut,
    data: String,
}

impl Parser {
    /// The data of the next whole event. Comments, names and numbers are left out: the data holds
    /// them too.
    fn event(&mut self) -> Result<Option<String>, Problem> {
        while let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
            let line = self.bytes.split_to(end);
            self.bytes.advance(1);
            let line = std::str::from_utf8(&line).map_err(|error| broken(&error.to_string()))?;
            let line = line.trim_end_matches('\r');
            if line.is_empty() && !self.data.is_empty() {
                return Ok(Some(std::mem::take(&mut self.data)));
            }
            if let Some(data) = line.strip_prefix("data:") {
                let separator = if self.data.is_empty() { "" } else { "\n" };
                self.data.push_str(separator);
                self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            }
        }
        if self.bytes.len() + self.data.len() > EVENT_BYTES_MAX {
            return Err(broken("an event is too large"));
        }
        Ok(None)
    }
}

fn broken(because: &str) -> Problem {
    Problem::new(
        codes::ANSWER_LOST,
        "the event stream broke off",
        because,
        "follow again, or ask another node with --api",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pieces: &[&[u8]]) -> Result<Vec<String>, Problem> {
        let mut parser = Parser::default();
        let mut events = Vec::new();
        for piece in pieces {
            parser.bytes.extend_from_slice(piece);
            while let Some(event) = parser.event()? {
                events.push(event);
            }
        }
        Ok(events)
    }

    #[test]
    fn events_arrive_in_any_pieces() {
        let text = b": hello\n\nid: 1\nevent: x\ndata: {\"a\":1}\n\ndata:{}\r\n\r\nid: 2\n";
        assert_eq!(parse(&[text]).unwrap(), ["{\"a\":1}", "{}"]);
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(parse(&bytes).unwrap(), ["{\"a\":1}", "{}"]);
    }

    #[test]
    fn what_never_ends_is_not_kept() {
        assert!(parse(&[&vec![b'x'; EVENT_BYTES_MAX + 1]]).is_err());
        assert!(parse(&[b"data: \xff\n"]).is_err());
    }
}
