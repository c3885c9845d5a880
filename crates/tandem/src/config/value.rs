//! Talks to single values: durations, sizes, addresses and names as people write them.
//! In: text. Out: typed values, or why it is none and what to write.
//! Units are PostgreSQL's: `ms`, `s`, `min`, `h`, `d`; `B`, `kB`, `MB`, `GB`, `TB` by 1024.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Why a text is not a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub because: String,
    pub try_: String,
}

fn unreadable<T>(because: impl Into<String>, try_: impl Into<String>) -> Result<T, Unreadable> {
    Err(Unreadable { because: because.into(), try_: try_.into() })
}

/// The longest host name that DNS has, and the longest of its labels.
const HOST_CHARS_MAX: usize = 253;
const LABEL_CHARS_MAX: usize = 63;

/// The longest name of a cluster, a node or a service: folders, slots and application names of
/// PostgreSQL (63 bytes) are made of two of them.
pub(super) const NAME_CHARS_MAX: usize = 31;

const MILLISECONDS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const BYTES: &[(&str, u64)] =
    &[("B", 1), ("kB", 1 << 10), ("MB", 1 << 20), ("GB", 1 << 30), ("TB", 1 << 40)];

/// A whole number and its unit.
fn with_unit(text: &str, units: &[(&str, u64)], example: &str) -> Result<u64, Unreadable> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let names: Vec<&str> = units.iter().map(|(name, _)| *name).collect();
    let names = names.join(", ");
    if number.is_empty() {
        return unreadable(
            "it does not start with a whole number",
            format!("write a whole number and a unit ({names}), such as \"{example}\""),
        );
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        if let Some((name, _)) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
            return unreadable(
                format!("the unit is spelt `{name}`, as in PostgreSQL"),
                format!("write \"{number}{name}\""),
            );
        }
        let because = if unit.is_empty() {
            "a number alone does not say its unit".to_owned()
        } else {
            format!("the unit `{unit}` is none of {names}")
        };
        return unreadable(
            because,
            format!("write a whole number and a unit ({names}), such as \"{example}\""),
        );
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor)).map_or_else(
        || unreadable("the number is too large", format!("write less, such as \"{example}\"")),
        Ok,
    )
}

/// `15s`.
pub(super) fn duration(text: &str) -> Result<Duration, Unreadable> {
    with_unit(text, MILLISECONDS, "15s").map(Duration::from_millis)
}

/// `16MB`.
pub(super) fn bytes(text: &str) -> Result<u64, Unreadable> {
    with_unit(text, BYTES, "16MB")
}

/// `100/s`: how many, and in what time.
pub(super) fn rate(text: &str) -> Result<(u32, Duration), Unreadable> {
    let read = text.split_once('/').and_then(|(count, unit)| {
        let is_number = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
        let count =
            count.parse::<u32>().ok().filter(|it| is_number && (1..=1_000_000).contains(it))?;
        let seconds = RATES.iter().find(|(name, _)| *name == unit)?.1;
        Some((count, Duration::from_secs(seconds)))
    });
    read.ok_or_else(|| Unreadable {
        because: "it is how many from 1 to 1000000, a slash, and s, min or h".to_owned(),
        try_: "write it like \"100/s\" or \"600/min\"".to_owned(),
    })
}

/// A rate as it would be written.
pub fn print_rate(count: u32, per: Duration) -> String {
    let unit = RATES.iter().find(|(_, seconds)| *seconds == per.as_secs());
    format!("{count}/{}", unit.map_or("s", |(name, _)| name))
}

const RATES: &[(&str, u64)] = &[("s", 1), ("min", 60), ("h", 3600)];

fn print(amount: u64, units: &[(&str, u64)]) -> String {
    let fitting =
        units.iter().rev().find(|(_, factor)| amount > 0 && amount.is_multiple_of(*factor));
    let (name, factor) = fitting.copied().unwrap_or(units[0]);
    format!("{}{name}", amount / factor)
}

/// A duration as it would be written.
pub fn print_duration(duration: Duration) -> String {
    print(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), MILLISECONDS)
}

/// A size as it would be written.
pub fn print_bytes(bytes: u64) -> String {
    print(bytes, BYTES)
}

/// Why a text cannot name a cluster, a node or a service, and what instead; none if it can.
pub fn name_flaw(text: &str) -> Option<(String, String)> {
    name(text).err().map(|Unreadable { because, try_ }| (because, try_))
}

/// Whether it can name a cluster, a node or a service.
pub(super) fn name(text: &str) -> Result<(), Unreadable> {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let because = match text.chars().next() {
        None => "it is empty".to_owned(),
        Some(first) if !first.is_ascii_lowercase() => {
            format!("it starts with {first:?}, not with a letter from a to z")
        }
        Some(_) => match text.chars().find(|c| !rest(*c)) {
            Some(other) => format!("{other:?} is not a letter from a to z, a digit or `-`"),
            None if text.len() > NAME_CHARS_MAX => {
                format!("it has {} characters, more than {NAME_CHARS_MAX}", text.len())
            }
            None => return Ok(()),
        },
    };
    let plain: String = text
        .to_lowercase()
        .chars()
        .map(|c| if rest(c) { c } else { '-' })
        .skip_while(|c| !c.is_ascii_lowercase())
        .take(NAME_CHARS_MAX)
        .collect();
    let example = if plain.is_empty() { "orders" } else { plain.trim_end_matches('-') };
    unreadable(
        because,
        format!("use a name such as `{example}`: folders and slots are named after it"),
    )
}

/// Where a node can be reached: a machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// By number.
    Ip(IpAddr),
    /// By a name that is looked up when dialled.
    Name(String),
}

impl Host {
    /// The number, if it is one.
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Name(_) => None,
        }
    }

    /// Whether it is this machine whoever asks.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Ip(ip) => ip.is_loopback(),
            Self::Name(name) => name == "localhost",
        }
    }
}

impl fmt::Display for Host {
    /// As it stands before `:port`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Where a node can be reached: a machine and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// The machine.
    pub host: Host,
    /// The port, never 0.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A port from its digits.
pub(super) fn port(text: &str) -> Result<u16, Unreadable> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        Ok(_) | Err(_) => unreadable(
            format!("`{text}` is not a port"),
            "write a whole number from 1 to 65535 after the last `:`",
        ),
    }
}

fn label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= LABEL_CHARS_MAX
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn host_name(text: &str) -> Result<String, Unreadable> {
    if text.is_empty() {
        return unreadable(
            "there is no address before the port",
            "write the address too, such as 10.0.0.1 or, to listen on all, 0.0.0.0",
        );
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let last = name.rsplit('.').next().unwrap_or("");
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return unreadable(
            format!("`{text}` is neither an IP address nor a DNS name"),
            "write four numbers from 0 to 255, such as 10.0.0.1, or a DNS name",
        );
    }
    if name.len() > HOST_CHARS_MAX || !name.split('.').all(label) {
        return unreadable(
            format!("`{text}` is not a DNS name"),
            "write labels of letters, digits and `-`, separated by dots",
        );
    }
    Ok(name.to_lowercase())
}

/// `10.0.0.1:7400`, `[fd00::1]:7400` or `db1.example.org:7400`.
pub(super) fn host_port(text: &str, port_example: u16) -> Result<HostPort, Unreadable> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return unreadable(
            "the colons of an IPv6 address hide where the port starts",
            format!("write \"[{text}]:{port_example}\""),
        );
    }
    let Some((host, digits)) = text.rsplit_once(':') else {
        return unreadable("there is no port", format!("write \"{text}:{port_example}\""));
    };
    let host = if let Some(inner) = host.strip_prefix('[') {
        match inner.strip_suffix(']').map(str::parse::<Ipv6Addr>) {
            Some(Ok(ip)) => Host::Ip(ip.into()),
            Some(Err(_)) | None => {
                return unreadable(
                    format!("`{host}` is not an IPv6 address in brackets"),
                    format!("write it like \"[fd00::1]:{port_example}\""),
                );
            }
        }
    } else if let Ok(ip) = host.parse::<IpAddr>() {
        if ip.is_ipv6() {
            return unreadable(
                "an IPv6 address before a port stands in brackets",
                format!("write \"[{host}]:{digits}\""),
            );
        }
        Host::Ip(ip)
    } else {
        Host::Name(host_name(host)?)
    };
    Ok(HostPort { host, port: port(digits)? })
}

/// `127.0.0.1:7401`.
pub(super) fn socket(text: &str, port_example: u16) -> Result<SocketAddr, Unreadable> {
    let HostPort { host, port } = host_port(text, port_example)?;
    match host {
        Host::Ip(ip) => Ok(SocketAddr::new(ip, port)),
        Host::Name(name) => unreadable(
            format!("one listens on an IP address, and `{name}` is a name"),
            format!("write an address of the machine, such as \"127.0.0.1:{port}\""),
        ),
    }
}

/// `10.0.0.1`.
pub(super) fn ip(text: &str) -> Result<IpAddr, Unreadable> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_or_else(
        |_| {
            unreadable(
                format!("`{text}` is not an IP address"),
                "write an address of the machine without a port, such as \"10.0.0.1\" or \"::\"",
            )
        },
        Ok,
    )
}
