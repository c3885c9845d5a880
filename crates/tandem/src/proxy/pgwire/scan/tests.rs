use super::super::arguments::tests::{arguments, bind};
use super::*;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

fn query(text: &str) -> Vec<u8> {
    message(b'Q', &[text.as_bytes(), b"\0"].concat())
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    let body = [name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\x01\0\0\0\x19"].concat();
    message(b'P', &body)
}

fn sync() -> Vec<u8> {
    message(b'S', b"")
}

/// What reaches the server, and what was found.
fn pass(scan: &mut Scan, pieces: &[&[u8]]) -> (Vec<u8>, Option<Lowered>) {
    let mut passed = Vec::new();
    for piece in pieces {
        match scan.feed(piece) {
            Asked::All => passed.extend_from_slice(piece),
            Asked::Stop { at, lowered, .. } => {
                passed.extend_from_slice(&piece[..at]);
                return (passed, lowered);
            }
        }
    }
    (passed, None)
}

fn found(bytes: &[u8]) -> Option<Lowered> {
    pass(&mut Scan::refusing(), &[bytes]).1
}

/// Streams that are refused, and how long what comes before the refused message is.
fn refused() -> Vec<(Vec<u8>, usize)> {
    let before = [message(b'p', b"secret\0"), query("SELECT 1"), message(b'B', &bind(&[])), sync()];
    let before = before.concat();
    let armed = [before.as_slice(), &parse("s", "SELECT set_config($1, $2, false)"), &sync()];
    let armed = armed.concat();
    let values = arguments(&[Some(b"client_min_messages"), Some(b"error")]);
    let call = message(b'F', &[&[0, 0, 8, 30, 0, 0], values.as_slice(), b"\0\0"].concat());
    let set_bind = bind(&[Some(b"synchronous_commit"), Some(b"off")]);
    [
        (&before, query("SET synchronous_commit = off")),
        (
            &before,
            query("UPDATE \"pg_settings\" SET setting='off' WHERE name='synchronous_commit'"),
        ),
        (&before, query("SELECT 1; set local CLIENT_MIN_MESSAGES to 'error'; SELECT 2")),
        (&before, parse("s", "SET SESSION synchronous_commit TO local")),
        (&before, parse("", "SELECT set_config('synchronous_commit', $1, true)")),
        (&before, parse("it's", "SET synchronous_commit = off")),
        (&armed, message(b'B', &set_bind)),
        (&armed, query("EXECUTE s('synchronous_commit', 'off')")),
        (&before, call),
    ]
    .into_iter()
    .map(|(before, last)| ([before.as_slice(), &last, &query("COMMIT")].concat(), before.len()))
    .collect()
}

fn passing() -> Vec<u8> {
    [
        message(b'p', b"SET synchronous_commit = off\0"),
        query("SHOW synchronous_commit"),
        query("SET synchronous_commit = on"),
        query("INSERT INTO log VALUES ('SET synchronous_commit = off')"),
        query(""),
        parse("SET synchronous_commit = off", "SELECT 1"),
        message(b'B', &bind(&[Some(b"synchronous_commit"), Some(b"off")])),
        message(b'd', b"SET synchronous_commit = off\n"),
        parse("", "SELECT setting FROM pg_settings WHERE name = $1"),
        message(b'B', &bind(&[Some(b"synchronous_commit")])),
        sync(),
    ]
    .concat()
}

#[test]
fn h13_what_is_refused_is_not_passed_on_however_it_is_split() {
    for (bytes, before) in refused() {
        for cut in 0..=bytes.len() {
            let (passed, lowered) = pass(&mut Scan::refusing(), &[&bytes[..cut], &bytes[cut..]]);
            assert!(lowered.is_some(), "{cut}");
            assert!(passed.starts_with(&bytes[..before]), "{cut}");
            let length = u32::from_be_bytes(bytes[before + 1..before + 5].try_into().unwrap());
            assert!(passed.len() < before + 1 + length as usize, "all of it was passed on: {cut}");
            assert!(cut > before && cut < bytes.len() || passed.len() == before, "{cut}");
        }
        let single: Vec<_> = bytes.chunks(1).collect();
        assert!(pass(&mut Scan::refusing(), &single).1.is_some());
    }
}

#[test]
fn random_splits_give_the_same_verdict() {
    let mut seed = 1u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let streams = refused().into_iter().map(|(bytes, _)| bytes).chain([passing()]);
    for bytes in streams {
        let whole = found(&bytes);
        for _ in 0..500 {
            let (mut pieces, mut rest) = (Vec::new(), bytes.as_slice());
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(1 + random(rest.len().min(40)));
                pieces.push(piece);
                rest = later;
            }
            assert_eq!(pass(&mut Scan::refusing(), &pieces).1, whole);
        }
    }
}

#[test]
fn everything_else_passes_however_it_is_split() {
    let bytes = passing();
    for cut in 0..=bytes.len() {
        let (passed, lowered) = pass(&mut Scan::refusing(), &[&bytes[..cut], &bytes[cut..]]);
        assert_eq!((passed.len(), lowered), (bytes.len(), None), "{cut}");
    }
}

#[test]
fn noise_never_panics() {
    let noise: Vec<u8> =
        (0..4096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for start in 0..64 {
        let mut scan = Scan::refusing();
        pass(&mut scan, &noise[start..].chunks(7).collect::<Vec<_>>());
        for kind in [b'Q', b'P', b'F'] {
            pass(&mut Scan::refusing(), &[&message(kind, &noise[start..])]);
            let framed = message(kind, &noise[start..]);
            pass(&mut Scan::refusing(), &framed.chunks(5).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_huge_message_costs_no_memory_and_is_read_to_its_end() {
    let mut scan = Scan::refusing();
    let row = b"('it''s a row of data', 1, 'SET synchronous_commit = off'), ".repeat(200);
    let end = b"('', 0, ''); SET synchronous_commit = off\0";
    let length = 4 + 7 + row.len() * 1000 + end.len();
    let head = [b"Q", &u32::try_from(length).unwrap().to_be_bytes()[..], b"INSERT "].concat();
    assert_eq!(scan.feed(&head), Asked::All);
    for _ in 0..1000 {
        assert_eq!(scan.feed(&row), Asked::All);
    }
    assert!(matches!(scan.feed(end), Asked::Stop { at: 0, lowered: Some(_), .. }));
    // What is copied is counted down, whatever it says.
    let mut scan = Scan::refusing();
    assert_eq!(scan.feed(b"d\x7f\xff\xff\xff"), Asked::All);
    for _ in 0..1000 {
        assert_eq!(scan.feed(&query("SET synchronous_commit = off")), Asked::All);
    }
    assert!(std::mem::size_of::<Scan>() <= 96, "{}", std::mem::size_of::<Scan>());
}

#[test]
fn impossible_lengths_stop_the_stream_behind_their_header() {
    for length in [0u32, 3, 0x8000_0000, u32::MAX] {
        let bytes = [b"Q".as_slice(), &length.to_be_bytes(), b"SELECT"].concat();
        assert_eq!(
            Scan::refusing().feed(&bytes),
            Asked::Stop { at: 5, flush: false, lowered: None }
        );
    }
}

#[test]
fn h43_what_is_owed_is_counted_also_where_nothing_is_refused() {
    what_is_owed_is_counted(Scan::refusing());
    what_is_owed_is_counted(Scan::counting());
    let mut scan = Scan::counting();
    let lower = query("SET synchronous_commit = off");
    assert_eq!(pass(&mut scan, &[&lower]), (lower, None));
    assert!(!scan.is_settled());
}

fn what_is_owed_is_counted(mut scan: Scan) {
    scan.feed(&[query("SELECT 1"), query("SELECT 2")].concat());
    scan.answered(1);
    assert!(!scan.is_settled());
    scan.answered(1);
    assert!(scan.is_settled());
    scan.feed(&[parse("", "SELECT 1"), message(b'B', &bind(&[])), message(b'E', b"\0")].concat());
    assert!(!scan.is_settled());
    scan.feed(&sync());
    scan.answered(1);
    assert!(scan.is_settled());
    // A COPY ignores the Sync that came with its Execute, and answers the one after its end.
    scan.feed(&[message(b'E', b"\0"), sync()].concat());
    scan.feed(&[message(b'd', b"1\n"), message(b'c', b"")].concat());
    assert!(!scan.is_settled(), "it has not got its Sync");
    scan.feed(&sync());
    scan.answered(1);
    assert!(scan.is_settled());
}

#[test]
fn texts_without_the_names_are_not_read() {
    assert!(!has_names(b"SELECT a_b, client_min, set_conf, pg_setting FROM _t_ WHERE c_m = '_'"));
    assert!(!has_names(b"_"));
    for text in [
        "synchronous_commit",
        "x SYNCHRONOUS_COMMIT",
        "a_client_min_messages",
        "set_config",
        "UPDATE \"pg_settings\"",
        "U&\"set_config\"",
    ] {
        assert!(has_names(text.as_bytes()), "{text}");
    }
}
