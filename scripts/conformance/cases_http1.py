"""Clients of HTTP/1.1 before endpoints of HTTP/1.1."""
import socket
import threading
import time

from door import Client1, wait
from peers import Closed

POST = "POST {} HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n"


def get(path):
    return f"GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n"


def raises_closed(what):
    try:
        what()
    except (Closed, ConnectionError):
        return
    raise AssertionError("it did not close the connection")


def requests_in_one_packet_are_answered_in_order(w):
    client = Client1(w.door.ports["old"])
    body = "POST /echo HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\n\r\n"
    client.send("".join(body + str(at) for at in range(5)) + get("/seen"))
    assert [client.response()[2] for _ in range(5)] == [b"%d" % at for at in range(5)]
    assert client.response()[2].startswith(b"GET /seen HTTP/1.1\r\n")


def chunks_of_every_good_shape_arrive(w):
    for chunks, body in [
        ("0\r\n\r\n", b""),
        ("3\r\nabc\r\n0\r\n\r\n", b"abc"),
        ("00000003\r\nabc\r\n0000\r\n\r\n", b"abc"),
        ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2),
        ("3;a=b;c=\"d;e\"\r\nabc\r\n0;x\r\n\r\n", b"abc"),
    ]:
        client = Client1(w.door.ports["old"])
        status, _, answer, _ = client.ask(POST.format("/echo"), chunks.encode())
        assert (status, answer) == (200, body), (chunks, status, answer)
        # Byte by byte it is the same.
        for byte in (POST.format("/echo") + chunks).encode():
            client.send(bytes([byte]))
        status, _, answer, _ = client.response()
        assert (status, answer) == (200, body), (chunks, status, answer)


def trailers_go_both_ways(w):
    client = Client1(w.door.ports["old"])
    chunks = b"1\r\na\r\n0\r\nsum: 7\r\n\r\n"
    assert client.ask(POST.format("/trailed"), chunks)[2] == b"sum: 7\r\n"
    status, _, body, trailers = client.ask(get("/trailers"))
    assert (status, body) == (200, b"one0123456789") and b"sum: 7" in trailers.lower(), trailers


def chunks_that_two_readers_could_read_in_two_ways_are_refused(w):
    before = len(w.old.heads)
    for chunks in ["0x1\r\na\r\n0\r\n\r\n", "-1\r\na\r\n", "+1\r\na\r\n0\r\n\r\n", " 1\r\na\r\n",
                   "1 \r\na\r\n0\r\n\r\n", "1\na\n0\n\n", "1\r\nab\r\n0\r\n\r\n", "\r\n", "g\r\n",
                   "1\r\na\n0\r\n\r\n", "11111111111111111\r\n", "1;\n\r\na\r\n0\r\n\r\n"]:
        client = Client1(w.door.ports["old"])
        smuggled = "GET /smuggled HTTP/1.1\r\nHost: shop\r\n\r\n"
        # It stays open: nothing but what was sent ends the request.
        client.send(POST.format("/echo") + chunks + smuggled)
        rest = client.rest()
        assert rest.startswith(b"HTTP/1.1 400"), (chunks, rest)
        assert rest.count(b"HTTP/1.1 ") <= 1, (chunks, rest)
    assert not w.old.saw("/smuggled"), w.old.heads[before:]


def heads_that_two_readers_could_read_in_two_ways_are_refused(w):
    for head in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n", "Content-Length: +5\r\n", "Content-Length: 0x5\r\n",
        "Content-Length: \r\n", "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n", "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding : chunked\r\n", "Transfer-Encoding:\x0bchunked\r\n",
        "a: b\r\n folded: c\r\n", "a: b\nTransfer-Encoding: chunked\r\n", "Host: other\r\n",
        "a\x00b: c\r\n", "a: b\rc: d\r\n", ": b\r\n", " a: b\r\n",
    ]:
        client = Client1(w.door.ports["old"])
        client.send(f"POST /smuggled HTTP/1.1\r\nHost: shop\r\n{head}\r\n0\r\n\r\n{get('/smuggled')}")
        rest = client.rest()
        assert rest.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")), (head, rest)
        assert rest.count(b"HTTP/1.1 ") == 1, (head, rest)
    assert not w.old.saw("/smuggled")


def responses_without_a_body_have_none(w):
    client = Client1(w.door.ports["old"])
    assert client.ask(get("/204"))[:1] == (204,)
    assert client.ask(get("/304"))[:1] == (304,)
    client.send("HEAD /seen HTTP/1.1\r\nHost: shop\r\n\r\n")
    status, fields, _, _ = client.response(is_head=True)
    assert status == 200 and int(fields["content-length"]) > 50
    assert client.ask(get("/hints"))[0] == 103
    assert client.response()[2] == b"a"


def a_client_that_closes_its_side_frees_the_endpoint(w):
    before, seen = w.old.gone.count("/never"), len(w.old.saw("/never"))
    client = Client1(w.door.ports["old"])
    client.send(get("/never"))
    wait(lambda: len(w.old.saw("/never")) > seen, "the request arrives")
    client.sock.shutdown(socket.SHUT_WR)
    wait(lambda: w.old.gone.count("/never") == before + 1, "the endpoint learns of it")
    assert client.rest().count(b"HTTP/1.1 200") == 0


def floods_of_fields_are_refused(w):
    for head, statuses in [("".join(f"a{at}: b\r\n" for at in range(2000)), (431, 400)),
                           ("a: " + "b" * 100_000 + "\r\n", (431,)),
                           ("a" * 100_000 + ": b\r\n", (431, 400))]:
        client = Client1(w.door.ports["old"])
        try:
            client.send(f"GET /flood HTTP/1.1\r\nHost: shop\r\n{head}\r\n")
        except ConnectionError:
            pass
        rest = client.rest()
        assert int(rest.split(b" ")[1]) in statuses, rest
    assert not w.old.saw("/flood")


def a_head_that_drips_is_waited_for_only_so_long(w):
    client = Client1(w.door.ports["short"])
    begun, cut = time.monotonic(), []

    def drip():
        client.send("GET / HTTP/1.1\r\nHost: shop\r\n")
        try:
            while not cut:
                client.send("a: b\r\n")
                time.sleep(0.05)
        except OSError:
            cut.append(time.monotonic() - begun)

    threading.Thread(target=drip, daemon=True).start()
    # It is told first; then it may drip on for a moment, for a reset would take its answer away.
    assert client.response()[0] == 408
    assert time.monotonic() - begun < 8
    wait(lambda: cut, "it is cut")
    assert cut[0] < 14, cut


def half_a_preface_is_waited_for_only_so_long(w):
    client = Client1(w.door.ports["short"])
    begun = time.monotonic()
    client.send("PRI * HTT")
    assert client.rest().startswith(b"HTTP/1.1 4")
    assert time.monotonic() - begun < 14


def a_body_that_stops_is_waited_for_only_so_long(w):
    client = Client1(w.door.ports["short"])
    begun = time.monotonic()
    client.send("POST /echo HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\n\r\nabc")
    rest = client.rest()
    assert rest.startswith(b"HTTP/1.1 408 ") and time.monotonic() - begun < 14, rest


def an_endpoint_that_never_answers_is_504(w):
    client = Client1(w.door.ports["short"])
    begun = time.monotonic()
    assert client.ask(get("/never"))[0] == 504
    assert 0.9 < time.monotonic() - begun < 14


def what_breaks_off_never_looks_whole(w):
    client = Client1(w.door.ports["old"])
    raises_closed(lambda: client.ask(get("/half")))
    client = Client1(w.door.ports["old"])
    post = "POST /close HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\n\r\na"
    assert client.ask(post)[0] == 502
    assert len(w.old.saw("/close")) == 1, "a POST is sent once"


def a_client_that_reads_slowly_is_read_for_slowly(w):
    w.old.sent = 0
    client = Client1(w.door.ports["old"])
    client.send(get("/big"))
    seen = [-1]

    def stands_still():
        now, seen[0] = seen[0], w.old.sent
        time.sleep(0.3)
        return now == w.old.sent > 0

    wait(stands_still, "the endpoint waits")
    assert w.old.sent < 16_000_000, w.old.sent
    assert len(client.response()[2]) == 30_000_000


def a_websocket_echoes(w):
    client = Client1(w.door.ports["old"])
    client.send("GET /ws HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
    assert client.response()[0] == 101
    echoes(client)


def echoes(client):
    data = bytes(range(256)) * 2000
    writer = threading.Thread(target=client.send, args=(data,))
    writer.start()
    got = bytes(client.buffer)
    while len(got) < len(data):
        more = client.sock.recv(65536)
        assert more, "it ends too soon"
        got += more
    writer.join()
    assert got == data


CASES = [case for name, case in list(globals().items())
         if callable(case) and getattr(case, "__module__", "") == __name__
         and case.__code__.co_varnames[:1] == ("w",)]
