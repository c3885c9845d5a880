//! Reads answers, as far as the benchmarks' endpoints and proxies give them.

use std::str;

/// An answer that has come whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: Option<u16>,
    pub closes: bool,
}

impl Answer {
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let mut lines = str::from_utf8(&bytes[..end]).unwrap_or_default().lines();
        let status = lines.next().unwrap_or_default().split(' ').nth(1);
        let (mut length, mut closes) = (None, false);
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().ok();
            }
            closes |= name.eq_ignore_ascii_case("connection") && value == "close";
        }
        let status = status.and_then(|word| word.parse().ok());
        let is_whole = bytes.len() - end >= length.unwrap_or(0);
        is_whole.then_some(Self { status, closes: closes || length.is_none() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        for cut in 0..whole.len() {
            assert_eq!(Answer::of(&whole[..cut]), None);
        }
        assert_eq!(Answer::of(whole), Some(Answer { status: Some(200), closes: false }));
        let last = b"HTTP/1.1 503 No\r\nConnection: close\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(Answer::of(last), Some(Answer { status: Some(503), closes: true }));
    }
}
