//! Builds messages that are right by the book, field by field.

use crate::proxy::fuzz::Random;

/// Changes worth more than any byte.
pub const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"\0",
    b"\x7f",
    b"\xff",
    b"0",
    b"1",
    b"f",
    b"+",
    b"-",
    b"_",
    b"\"",
    b"`",
    b"\r\n\r\n",
    b"\r\n ",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"Content-Length: 3\r\n",
    b"content-length:3\r\n",
    b"Content_Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"transfer-encoding:\tchunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Host: b\r\n",
    b"Connection: close\r\n",
    b"Connection: content-length, host, x-a\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"http://b/",
    b"GET / HTTP/1.1\r\nHost: s\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
];

const FIELDS: &[&str] = &[
    "Accept: */*",
    "Cookie: a=b; c=d",
    "X-A:   1  ",
    "x-a:",
    "Connection: keep-alive",
    "Connection: X-A, close",
    "TE: trailers, deflate",
    "Keep-Alive: timeout=5",
    "X-Forwarded-For: 10.0.0.1",
    "Forwarded: for=10.0.0.1",
    "X_Forwarded_For: 10.0.0.2",
    "Proxy-Connection: keep-alive",
    "Accept-Encoding: gzip",
    "X-Value: !\"#$%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~\t x",
];

/// A request by the book.
pub fn request(random: &mut Random) -> Vec<u8> {
    let method =
        random.pick(&["GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "M-SEARCH"]);
    let target =
        random.pick(&["/", "/a/b?c=d&e", "/%7Euser;p=1", "/?q=`", "http://shop/x", "http://shop"]);
    let is_new = !random.one_in(8);
    let mut head = format!("{method} {target} HTTP/1.{}\r\nHost: shop\r\n", u8::from(is_new));
    fields(random, &mut head);
    let mut body = Vec::new();
    match random.below(4) {
        0 if is_new => {
            head +=
                random.pick(&["Transfer-Encoding: chunked\r\n", "transfer-encoding: Chunked\r\n"]);
            body = chunked(random);
        }
        1 => {
            body = content(random);
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        _ => {}
    }
    [head.as_bytes(), b"\r\n", &body].concat()
}

/// A response by the book, to a GET.
pub fn response(random: &mut Random) -> Vec<u8> {
    let status =
        random.pick(&["200 OK", "404 Not Found", "204 No Content", "304 ", "500 x y", "103 Early"]);
    let mut head = format!("HTTP/1.1 {status}\r\n");
    fields(random, &mut head);
    let mut body = Vec::new();
    if status.starts_with("200") || status.starts_with('4') || status.starts_with('5') {
        match random.below(3) {
            0 => {
                head += "Transfer-Encoding: chunked\r\n";
                body = chunked(random);
            }
            1 => {
                body = content(random);
                head += &format!("Content-Length: {}\r\n", body.len());
            }
            _ => body = content(random),
        }
    }
    [head.as_bytes(), b"\r\n", &body].concat()
}

fn fields(random: &mut Random, head: &mut String) {
    for _ in 0..random.below(4) {
        *head += random.pick(FIELDS);
        *head += "\r\n";
    }
}

fn content(random: &mut Random) -> Vec<u8> {
    (0..random.below(40)).map(|_| random.pick(b"ab\r\n\0 0")).collect()
}

fn chunked(random: &mut Random) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..random.below(4) {
        let content = [content(random), b"x".to_vec()].concat();
        let extension = random.pick(&["", "", ";a", ";a=\"b c\"", ";a=b;c"]);
        let zeros = random.pick(&["", "", "0", "000"]);
        body.extend_from_slice(format!("{zeros}{:x}{extension}\r\n", content.len()).as_bytes());
        body.extend_from_slice(&content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(random.pick(&["0\r\n", "000\r\n", "0;a=b\r\n"]).as_bytes());
    body.extend_from_slice(random.pick(&["", "", "Digest: x\r\n", "A: b\r\nB:\r\n"]).as_bytes());
    body.extend_from_slice(b"\r\n");
    body
}
