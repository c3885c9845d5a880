//! Reads messages as RFC 9112 says, in the plainest way that there is: whole, line by line, without
//! a thought of speed. It shares nothing with what it checks.

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    None,
    After(u64),
    Chunked,
    ByClose,
}

/// The head of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Method, target and version, or version, status and reason.
    pub start: [String; 3],
    /// Names in lower case, values without the space around them.
    pub fields: Vec<(String, Vec<u8>)>,
    pub length: usize,
}

impl Head {
    /// The one value of a field; none if there is none, an error if there are two.
    pub fn one(&self, name: &str) -> Result<Option<&[u8]>, &'static str> {
        let mut found = self.fields.iter().filter(|(other, _)| other == name);
        let first = found.next().map(|(_, value)| value.as_slice());
        if found.next().is_some() { Err("a field is there twice") } else { Ok(first) }
    }

    /// How the body of a request ends.
    pub fn ends(&self) -> Result<Ends, &'static str> {
        match (self.one("transfer-encoding")?, self.one("content-length")?) {
            (Some(_), Some(_)) => Err("two framings"),
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Ends::Chunked),
            (Some(_), None) => Err("a coding that is not chunked"),
            (None, Some(length)) => number(length, 10).map(Ends::After),
            (None, None) => Ok(Ends::None),
        }
    }
}

/// The first head; none if it has not come whole.
pub fn head(bytes: &[u8]) -> Result<Option<Head>, &'static str> {
    let mut skipped = 0;
    while bytes[skipped..].starts_with(b"\r\n") {
        skipped += 2;
    }
    let bytes = &bytes[skipped..];
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = &bytes[..end];
    let mut lines = Vec::new();
    let mut from = 0;
    for at in 0..text.len() {
        if text[at..].starts_with(b"\r\n") {
            lines.push(&text[from..at]);
            from = at + 2;
        }
    }
    lines.push(&text[from..]);
    if lines.iter().any(|line| line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))) {
        return Err("half an end of a line");
    }
    let start = String::from_utf8_lossy(lines[0]).into_owned();
    let mut words = start.splitn(3, ' ').map(str::to_owned);
    let start = [words.next(), words.next(), words.next()].map(Option::unwrap_or_default);
    let mut fields = Vec::new();
    for line in &lines[1..] {
        let colon = line.iter().position(|byte| *byte == b':').ok_or("a field without a colon")?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err("a name that is none");
        }
        if value.iter().any(|byte| (*byte < 32 && *byte != 9) || *byte == 127) {
            return Err("a value with a control character");
        }
        let value = value.trim_ascii().to_vec();
        fields.push((String::from_utf8_lossy(name).to_ascii_lowercase(), value));
    }
    Ok(Some(Head { start, fields, length: skipped + end + 4 }))
}

/// Content and length of a body that is there whole; none if more has to come.
pub fn body(ends: Ends, bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, &'static str> {
    match ends {
        Ends::None => Ok(Some((Vec::new(), 0))),
        Ends::ByClose => Ok(Some((bytes.to_vec(), bytes.len()))),
        Ends::After(length) => {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            Ok(bytes.get(..length).map(|content| (content.to_vec(), length)))
        }
        Ends::Chunked => chunks(bytes),
    }
}

fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, &'static str> {
    let (mut content, mut at) = (Vec::new(), 0);
    loop {
        let Some(line) = line(&bytes[at..])? else { return Ok(None) };
        at += line.len() + 2;
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let size = usize::try_from(number(digits, 16)?).unwrap_or(usize::MAX);
        if size == 0 {
            break;
        }
        let Some(data) = at.checked_add(size).and_then(|end| bytes.get(at..end)) else {
            return Ok(None);
        };
        content.extend_from_slice(data);
        at += size;
        match bytes.get(at..at + 2) {
            Some(b"\r\n") => at += 2,
            Some(_) => return Err("a chunk that does not end"),
            None => return Ok(None),
        }
    }
    loop {
        let Some(line) = line(&bytes[at..])? else { return Ok(None) };
        at += line.len() + 2;
        if line.is_empty() {
            return Ok(Some((content, at)));
        }
    }
}

fn line(bytes: &[u8]) -> Result<Option<&[u8]>, &'static str> {
    let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    let is_odd = |byte: &u8| (*byte < 32 && *byte != 9) || *byte == 127;
    if bytes[..end].iter().any(is_odd) {
        Err("half an end of a line")
    } else {
        Ok(Some(&bytes[..end]))
    }
}

/// Whether a path with its query can be written for everybody: of what browsers leave as it is, one
/// character is good only in a query.
pub fn is_target(target: &str) -> bool {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let is_good = |byte: u8| byte.is_ascii_graphic() && !b"#\"<>\\".contains(&byte);
    path.bytes().all(|byte| is_good(byte) && byte != b'`') && query.bytes().all(is_good)
}

fn number(digits: &[u8], base: u32) -> Result<u64, &'static str> {
    let mut value = 0_u64;
    for digit in digits {
        let digit = char::from(*digit).to_digit(base).ok_or("a digit that is none")?;
        value = value.checked_mul(u64::from(base)).ok_or("a number that is too big")?;
        value = value.checked_add(u64::from(digit)).ok_or("a number that is too big")?;
    }
    if digits.is_empty() { Err("a number without digits") } else { Ok(value) }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
