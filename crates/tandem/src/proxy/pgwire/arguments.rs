//! Decides whether a value of a Bind or a FunctionCall is the name of a setting that a session may
//! not lower, once it is armed (`recognise.rs`).
//! In: the message's body, in pieces of any size. Out: the setting.
//! Keeps: memory does not grow with a value.
//! Tested by: below, `scan.rs`.

use super::durability::{NAME_MAX, Setting, setting};

/// What comes next, and how many bytes of it.
#[derive(Clone, Copy)]
enum Part {
    /// Names of a portal and a statement, each ends with a zero.
    Names(u8),
    /// The number of the function.
    Function,
    FormatCount,
    Formats,
    ValueCount,
    Length,
    Value,
    Rest,
}

/// One message.
pub(super) struct Arguments {
    part: Part,
    /// Bytes that are missing of the part.
    left: usize,
    number: u32,
    values: u32,
    name: [u8; NAME_MAX],
    named: usize,
    found: Option<&'static Setting>,
}

impl Arguments {
    pub(super) fn of_bind() -> Self {
        Self::at(Part::Names(2), 0)
    }

    pub(super) fn of_call() -> Self {
        Self::at(Part::Function, 4)
    }

    fn at(part: Part, left: usize) -> Self {
        let name = [0; NAME_MAX];
        Self { part, left, number: 0, values: 0, name, named: 0, found: None }
    }

    pub(super) fn found(&self) -> Option<&'static Setting> {
        self.found
    }

    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(byte) = bytes.first() {
            match self.part {
                Part::Rest => return,
                Part::Names(names) => {
                    if *byte == 0 {
                        let more = names > 1;
                        let next = if more { Part::Names(names - 1) } else { Part::FormatCount };
                        self.enter(next, if more { 0 } else { 2 });
                    }
                    bytes = &bytes[1..];
                }
                Part::Formats | Part::Value => {
                    let (now, later) = bytes.split_at(self.left.min(bytes.len()));
                    for (place, byte) in self.name[self.named..].iter_mut().zip(now) {
                        *place = *byte;
                    }
                    self.named = (self.named + now.len()).min(NAME_MAX);
                    self.left -= now.len();
                    bytes = later;
                    self.end_of_part();
                }
                Part::Function | Part::FormatCount | Part::ValueCount | Part::Length => {
                    self.number = self.number << 8 | u32::from(*byte);
                    self.left -= 1;
                    bytes = &bytes[1..];
                    self.end_of_part();
                }
            }
        }
    }

    fn enter(&mut self, part: Part, left: usize) {
        (self.part, self.left, self.number, self.named) = (part, left, 0, 0);
    }

    /// Goes on to the next part that has bytes.
    fn end_of_part(&mut self) {
        while self.left == 0 {
            let number = self.number as usize;
            match self.part {
                Part::Function => self.enter(Part::FormatCount, 2),
                Part::FormatCount => self.enter(Part::Formats, number * 2),
                Part::Formats => self.enter(Part::ValueCount, 2),
                Part::ValueCount => {
                    self.values = self.number;
                    self.next_value();
                }
                // A negative length is NULL.
                Part::Length if self.number > i32::MAX as u32 => self.next_value(),
                Part::Length => {
                    self.enter(Part::Value, number);
                    // Too long to be a name: nothing of it is kept.
                    if number > NAME_MAX {
                        self.named = NAME_MAX;
                    }
                    self.number = u32::try_from(number).unwrap_or(u32::MAX);
                }
                Part::Value => {
                    let length = self.number as usize;
                    if let Some(name) = self.name.get(..length) {
                        self.found = self.found.or(setting(name));
                    }
                    self.next_value();
                }
                Part::Names(_) | Part::Rest => return,
            }
        }
    }

    fn next_value(&mut self) {
        match self.values.checked_sub(1) {
            Some(values) => {
                self.values = values;
                self.enter(Part::Length, 4);
            }
            None => self.enter(Part::Rest, 1),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::Arguments;

    pub(in crate::proxy::pgwire) fn bind(values: &[Option<&[u8]>]) -> Vec<u8> {
        [b"portal\0statement\0\0\x02\0\x01\0\0", arguments(values).as_slice(), b"\0\0"].concat()
    }

    pub(in crate::proxy::pgwire) fn arguments(values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
        for value in values {
            let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap());
            body.extend(length.to_be_bytes());
            body.extend(value.unwrap_or_default());
        }
        body
    }

    fn found(mut arguments: Arguments, body: &[u8], cut: usize) -> Option<&'static str> {
        arguments.feed(&body[..cut]);
        arguments.feed(&body[cut..]);
        arguments.found().map(|setting| setting.name)
    }

    #[test]
    fn a_name_is_found_as_a_whole_value_at_every_split() {
        for (values, name) in [
            (&[Some(&b"Synchronous_Commit"[..])][..], Some("synchronous_commit")),
            (&[None, Some(b""), Some(b"client_min_messages")], Some("client_min_messages")),
            (&[Some(b"x synchronous_commit"), Some(b"synchronous_commi")], None),
            (&[Some(&[b'x'; 300]), Some(b"synchronous_commit")], Some("synchronous_commit")),
            (&[], None),
        ] {
            let body = bind(values);
            let call = [&[0, 0, 8, 30, 0, 0], arguments(values).as_slice(), b"\0\0"].concat();
            for cut in 0..=body.len() {
                assert_eq!(found(Arguments::of_bind(), &body, cut), name, "{values:?} {cut}");
            }
            for cut in 0..=call.len() {
                assert_eq!(found(Arguments::of_call(), &call, cut), name, "{values:?} {cut}");
            }
        }
    }
}
