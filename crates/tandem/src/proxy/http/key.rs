//! Reads what a request belongs to: its key.
//! In: a head, what an owner calls a key, who the client is. Out: the bytes of the key; none if the
//! request has none.
//! Keeps: what only a trusted proxy may say is no key when a stranger says it. An empty value is no
//! key: everybody who has none would be one and the same.
//! Where a field or cookie is there twice the first one counts, wherever it came from: a client may
//! name any key, so a key says where a request belongs and never what it may do. Where one owner
//! alone may work for a key that is too little: what its reader could take for another key than was
//! found here is in doubt, and such a request is for nobody.
//! Not here: where a key belongs (`tandem_core`), what becomes of a request without one.
//! Tested by: below.

use super::trusted::{self, Network};
use super::wire::fields::{self, Field};
use super::wire::request::Head;
use super::wire::rewrite::Origin;
use crate::proxy::balancer::limiter;
use httparse::Header;
use std::borrow::Cow;
use tandem_core::clustering::load_balanced::key::{Source, hash};

/// Who sent a request, and who may have sent it for somebody else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender<'a> {
    pub(super) origin: Origin,
    pub(super) trusted: &'a [Network],
}

/// The key of a request.
pub(super) fn of<'b>(
    source: &Source,
    head: &Head<'_, 'b>,
    sender: Sender<'_>,
) -> Option<Cow<'b, [u8]>> {
    let found = match source {
        Source::Address => {
            let client = trusted::client(head.fields, sender.origin, sender.trusted);
            return Some(Cow::Owned(client.to_string().into_bytes()));
        }
        Source::Header(name) => header(head, name, sender.origin.is_trusted),
        Source::Cookie(name) => cookie(head, name),
        Source::PathSegment(place) => segment(head.target, *place),
    };
    found.filter(|key| !key.is_empty()).map(Cow::Borrowed)
}

/// Why whoever gets a request could find another key in it than was found here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// The field is there more than once: some take the last one, some join them.
    Twice,
    /// `Connection` names the field, so it goes no further than here.
    Dropped,
}

/// Whether there is doubt about a key. Cookies may be there twice, for several paths.
pub(super) fn doubt(source: &Source, head: &Head<'_, '_>) -> Option<Doubt> {
    let Source::Header(name) = source else { return None };
    let is_it = |field: &&Header<'_>| field.name.eq_ignore_ascii_case(name);
    let mut found = head.fields.iter().filter(is_it);
    found.next()?;
    if found.next().is_some() {
        return Some(Doubt::Twice);
    }
    fields::is_named(head.fields, name).then_some(Doubt::Dropped)
}

/// Who is counted for a request's rate.
pub(super) fn client(source: &Source, head: &Head<'_, '_>, sender: Sender<'_>) -> u64 {
    let key = if *source == Source::Address { None } else { of(source, head, sender) };
    key.map_or_else(
        || limiter::client(trusted::client(head.fields, sender.origin, sender.trusted)),
        |key| hash(&key),
    )
}

fn header<'b>(head: &Head<'_, 'b>, name: &str, is_trusted: bool) -> Option<&'b [u8]> {
    match Field::of(name) {
        // The one that counts: of the target, if that has one.
        Field::Host => return head.host.map(str::as_bytes),
        Field::Forwarded
        | Field::ForwardedFor
        | Field::ForwardedHost
        | Field::ForwardedProto
        | Field::Claim
        | Field::Lookalike
            if !is_trusted =>
        {
            return None;
        }
        _ => {}
    }
    head.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}

fn cookie<'b>(head: &Head<'_, 'b>, name: &str) -> Option<&'b [u8]> {
    let cookies = head.fields.iter().filter(|field| Field::of(field.name) == Field::Cookie);
    let mut pairs = cookies.flat_map(|field| fields::pairs(field.value));
    pairs.find(|(key, _)| *key == name.as_bytes()).map(|(_, value)| value)
}

/// As it is written: `%61` and `a` are two keys.
fn segment(target: &str, place: u32) -> Option<&[u8]> {
    let path = target.split('?').next().unwrap_or_default();
    let place = usize::try_from(place).ok()?;
    // Before the first slash there is nothing: segments count from 1.
    path.split('/').nth(place).filter(|_| place > 0).map(str::as_bytes)
}

/// What the cookie says that keeps a client at its endpoint.
pub(super) fn token(fields: &[Header<'_>], name: &str) -> Option<u64> {
    let cookies = fields.iter().filter(|field| Field::of(field.name) == Field::Cookie);
    let mut pairs = cookies.flat_map(|field| fields::pairs(field.value));
    let (_, value) = pairs.find(|(key, _)| *key == name.as_bytes())?;
    let digits = std::str::from_utf8(value).ok().filter(|value| value.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::http::wire::request;

    const HEAD: &str = "GET /shop-7/a%2fb//x?y/z HTTP/1.1\r\nHost: shop.example\r\n\
         X-Shop: one\r\nx-shop: two\r\nX-Empty: \r\n\
         Cookie: a=1; sid=abc; sid=def\r\nCookie: late=2; none=\r\n\
         X-Forwarded-For: 203.0.113.9, 10.0.0.3\r\nX-Real-IP: 203.0.113.9\r\n\r\n";

    fn key(source: &Source, peer: &str) -> Option<String> {
        let mut room = request::no_fields();
        let head = request::read(HEAD.as_bytes(), &mut room, (100, 1_000)).unwrap().unwrap();
        let trusted = ["10.0.0.0/8".parse::<Network>().unwrap()];
        let ip = peer.parse().unwrap();
        let is_trusted = trusted[0].contains(ip);
        let origin = Origin { ip, is_encrypted: false, is_trusted };
        let found = of(source, &head, Sender { origin, trusted: &trusted })?;
        Some(String::from_utf8_lossy(&found).into_owned())
    }

    #[test]
    fn a_key_is_where_its_owner_says_or_missing() {
        let header = |name: &str| key(&Source::Header(name.to_owned()), "192.0.2.1");
        assert_eq!(header("X-SHOP").as_deref(), Some("one"));
        assert_eq!(header("host").as_deref(), Some("shop.example"));
        assert_eq!([header("x-empty"), header("x-none")], [None, None]);
        let cookie = |name: &str| key(&Source::Cookie(name.to_owned()), "192.0.2.1");
        assert_eq!(cookie("sid").as_deref(), Some("abc"));
        assert_eq!(cookie("late").as_deref(), Some("2"));
        assert_eq!([cookie("none"), cookie("SID"), cookie("x")], [None, None, None]);
        let segment = |place: u32| key(&Source::PathSegment(place), "192.0.2.1");
        assert_eq!(segment(1).as_deref(), Some("shop-7"));
        assert_eq!(segment(2).as_deref(), Some("a%2fb"));
        assert_eq!([segment(0), segment(3), segment(5)], [None, None, None]);
        assert_eq!(segment(4).as_deref(), Some("x"));
    }

    #[test]
    fn only_a_trusted_proxy_says_who_its_client_is() {
        let address = |peer: &str| key(&Source::Address, peer).unwrap();
        assert_eq!(address("192.0.2.1"), "192.0.2.1");
        assert_eq!(address("10.0.0.1"), "203.0.113.9");
        let real = |peer: &str| key(&Source::Header("X-Real-IP".to_owned()), peer);
        assert_eq!(real("192.0.2.1"), None);
        assert_eq!(real("10.0.0.1").as_deref(), Some("203.0.113.9"));
    }
}
