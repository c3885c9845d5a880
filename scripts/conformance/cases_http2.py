"""Clients of HTTP/2 before endpoints of HTTP/1.1; what a client may not do."""
import time

import h2.errors
import h2.exceptions

from door import PREFACE, Answer, Client1, Client2, believes, frame, wait
from peers import Closed

CALM = h2.errors.ErrorCodes.ENHANCE_YOUR_CALM


def a_hundred_requests_go_side_by_side(w):
    client = Client2(w.door.ports["old"])
    client.ask("GET", "/echo")
    asked = {client.begin("POST", "/echo", is_all=False): b"%d" % at for at in range(100)}
    for at, body in asked.items():
        client.send(at, body, True)
    for at, body in asked.items():
        answer = client.answer(at)
        assert (answer.status, bytes(answer.body)) == (200, body), (at, answer.status)


def streams_beyond_the_limit_are_refused_and_nothing_else(w):
    client = Client2(w.door.ports["old"])
    client.ask("GET", "/echo")
    # Its own library would not.
    client.conn.remote_settings[3] = 1000
    client.conn.remote_settings.acknowledge()
    slow = [client.begin("GET", "/never") for _ in range(100)]
    over = client.begin("GET", "/over")
    answer = client.answer(over)
    assert answer.reset == h2.errors.ErrorCodes.REFUSED_STREAM, answer.reset
    for at in slow:
        client.conn.reset_stream(at, h2.errors.ErrorCodes.CANCEL)
    client.flush()
    assert client.ask("GET", "/echo").status == 200
    assert not w.old.saw("/over")


def heads_and_bodies_become_those_of_http1(w):
    client = Client2(w.door.ports["old"])
    fields = [("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"), ("x-forwarded-for", "9.9.9.9")]
    seen = bytes(client.ask("GET", "/seen?a=b", fields).body).decode()
    assert seen.startswith("GET /seen?a=b HTTP/1.1\r\n") and "\r\nHost: shop\r\n" in seen, seen
    assert "\r\ncookie: a=1; b=2\r\n" in seen and "9.9.9.9" not in seen, seen
    answer = client.ask("POST", "/trailed", body=b"x", trailers=[("sum", "7")])
    assert bytes(answer.body) == b"sum: 7\r\n", answer.body
    answer = client.ask("GET", "/trailers")
    assert bytes(answer.body) == b"one0123456789" and answer.trailers == {"sum": "7"}, answer.trailers
    assert "transfer-encoding" not in answer.fields
    assert client.ask("GET", "/204").status == 204 and client.ask("GET", "/304").status == 304
    head = client.ask("HEAD", "/seen")
    assert int(head.fields["content-length"]) > 50 and not head.body
    hints = client.ask("GET", "/hints")
    assert (hints.interim, bytes(hints.body)) == (["103"], b"a")
    large = b"." * 2_000_000
    assert bytes(client.ask("POST", "/echo", body=large).body) == large


def only_so_much_is_under_way_to_one_that_does_not_read(w):
    w.old.sent = 0
    client = Client2(w.door.ports["old"])
    client.takes = False
    at = client.begin("GET", "/big")
    client.until(lambda: client.streams[at].owed == 65535)
    seen = [-1]

    def stands_still():
        now, seen[0] = seen[0], w.old.sent
        time.sleep(0.3)
        return now == w.old.sent > 0

    wait(stands_still, "the endpoint waits")
    assert w.old.sent < 16_000_000, w.old.sent
    # Others of the connection are not kept waiting by a stream's window.
    client.conn.increment_flow_control_window(1 << 20)
    client.takes = True
    assert client.ask("POST", "/echo", body=b"x").status == 200
    client.conn.increment_flow_control_window(40_000_000)
    client.conn.increment_flow_control_window(40_000_000, at)
    client.flush()
    assert len(client.answer(at).body) == 30_000_000


def what_a_client_that_takes_nothing_costs_is_bounded(w):
    # Once more as much as was measured: what is freed does not go back to the system at once.
    for service, each_kb in [("old", 5_000), ("new", 20_000)]:
        before, clients = w.door.rss_kb(), []
        for _ in range(3):
            client = Client2(w.door.ports[service], window=0)
            client.ask("HEAD", "/204")
            for _ in range(100):
                client.begin("GET", "/big")
            clients.append(client)
        time.sleep(1)
        grown = w.door.rss_kb() - before
        assert grown < 3 * each_kb, (service, grown)
        for client in clients:
            client.sock.close()


def a_reset_frees_the_endpoint(w):
    before, seen = w.old.gone.count("/never"), len(w.old.saw("/never"))
    client = Client2(w.door.ports["old"])
    at = client.begin("GET", "/never")
    wait(lambda: len(w.old.saw("/never")) > seen, "it arrives")
    client.ask("GET", "/echo")
    client.conn.reset_stream(at, h2.errors.ErrorCodes.CANCEL)
    client.flush()
    wait(lambda: w.old.gone.count("/never") > before, "the endpoint learns of it")


def an_endpoint_that_never_answers_is_504_on_its_stream_only(w):
    client = Client2(w.door.ports["short"])
    at = client.begin("GET", "/never")
    assert client.ask("GET", "/echo").status == 200
    assert client.answer(at).status == 504


def what_breaks_off_is_a_reset(w):
    client = Client2(w.door.ports["old"])
    answer = client.ask("GET", "/half")
    assert not answer.has_ended and answer.reset == h2.errors.ErrorCodes.INTERNAL_ERROR
    assert client.ask("POST", "/close", body=b"x").status == 502


def a_websocket_by_extended_connect_echoes(w):
    client = Client2(w.door.ports["old"])
    client.ask("GET", "/echo")
    assert client.conn.remote_settings.get(8) == 1, "it says that it takes them"
    echoes(client, client.open("/ws"))
    refused = client.answer(client.open("/echo"))
    assert refused.status == 502 or refused.reset is not None, "what is no WebSocket is none"


def connect_udp_by_extended_connect_echoes_and_what_is_unknown_is_501(w):
    client = Client2(w.door.ports["old"])
    client.ask("GET", "/echo")
    echoes(client, client.open("/udp", "connect-udp"))
    assert "\r\nUpgrade: connect-udp" in w.old.saw("/udp")[0]
    assert client.answer(client.open("/ws", "other")).status == 501
    assert client.ask("GET", "/echo").status == 200, "the connection goes on"


def echoes(client, at):
    answer = client.streams[at]
    client.until(lambda: answer.status)
    assert answer.status == 200, answer.status
    data = bytes(range(256)) * 1000
    client.send(at, data)
    client.until(lambda: len(answer.body) == len(data))
    assert bytes(answer.body) == data


def what_would_be_another_request_to_http1_is_none(w):
    evil = [[("transfer-encoding", "chunked")], [("connection", "close")], [("upgrade", "h2c")],
            [("te", "gzip")], [("a", "b\r\nevil: 1")], [("a", "b\nevil: 1")], [("a", "b\0")],
            [("a b", "c")], [("a:", "c")], [("", "c")], [("A-evil", "1")], [("content-length", "1")],
            [("content-length", "1"), ("content-length", "2")], [("content-length", "1x")],
            [("host", "other")], [("keep-alive", "x")], [("proxy-connection", "x")]]
    for fields in evil:
        client = Client2(w.door.ports["old"])
        try:
            answer = client.ask("POST", "/second", fields, body=b"0\r\n\r\nGET /second HTTP/1.1")
            assert answer.reset is not None or answer.status >= 400, (fields, answer.status)
        except (Closed, OSError, h2.exceptions.ProtocolError):
            pass
    for method, path in [("GET evil", "/second"), ("GET", "/second evil"), ("GET", "second"),
                         ("GET", "/second\r\n"), ("", "/second"), ("GET", "")]:
        client = Client2(w.door.ports["old"])
        try:
            answer = client.ask(method, path)
            assert answer.reset is not None or answer.status >= 400, (method, path, answer.status)
        except (Closed, OSError, h2.exceptions.ProtocolError):
            pass
    for head in w.old.heads:
        assert "evil" not in head and "content-length: 1\r\n" not in head, head
    # A length that is too great for the body never becomes a request by itself.
    client = Client2(w.door.ports["old"])
    at = client.begin("POST", "/echo", [("content-length", "5")], False)
    client.send(at, b"abc", True)
    try:
        answer = client.answer(at)
        assert answer.reset is not None or answer.status >= 400
    except Closed:
        pass


def heads_that_are_too_long_are_refused(w):
    client = Client2(w.door.ports["old"])
    answer = client.ask("GET", "/flood", [(f"a{at}", "b" * 1000) for at in range(50)])
    assert answer.reset is not None or answer.status == 431, answer.status
    assert client.ask("GET", "/echo").status == 200, "the connection goes on"
    answer = client.ask("GET", "/flood", [(f"a{at}", "b") for at in range(300)])
    assert answer.reset is not None or answer.status in (400, 431), answer.status
    assert not w.old.saw("/flood")


def flood(w, data):
    """It is cut, and nobody else notices."""
    other = Client2(w.door.ports["old"])
    other.ask("GET", "/echo")
    client = Client2(w.door.ports["old"])
    try:
        client.sock.sendall(data)
    except OSError:
        pass
    client.end()
    assert client.is_closed
    assert other.ask("GET", "/echo").status == 200
    assert client.goaway in (None, CALM), client.goaway


def to_acknowledge_every_kilobyte_is_no_flood(w):
    client = Client2(w.door.ports["old"])
    client.takes = False
    at = client.begin("GET", "/big")
    answer, taken = client.streams[at], 0
    while taken < 6_000_000:
        client.read()
        while len(answer.body) - taken >= 1000:
            client.conn.increment_flow_control_window(1000)
            client.conn.increment_flow_control_window(1000, at)
            taken += 1000
        client.flush()
    assert client.ask("GET", "/echo").status == 200, client.goaway


def many_small_messages_at_once_are_no_flood(w):
    client = Client2(w.door.ports["old"])
    client.ask("GET", "/echo")
    asked = [client.begin("POST", "/echo", is_all=False) for _ in range(3)]
    for _ in range(1000):
        for at in asked:
            client.conn.send_data(at, b"0123456789")
    for at in asked:
        client.conn.end_stream(at)
    client.flush()
    for at in asked:
        answer = client.answer(at)
        assert (answer.status, bytes(answer.body)) == (200, b"0123456789" * 1000), answer.status


def what_is_sent_ahead_of_a_refused_websocket_is_no_request(w):
    client = Client2(w.door.ports["old"])
    client.ask("GET", "/echo")
    at = client.conn.get_next_available_stream_id()
    client.conn.send_headers(at, [
        (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"),
        (":authority", "shop"), (":path", "/304"), ("sec-websocket-version", "13")])
    client.streams[at] = Answer()
    client.conn.send_data(at, b"GET /ahead HTTP/1.1\r\nHost: shop\r\n\r\n")
    client.flush()
    assert client.answer(at).status == 304
    assert client.ask("GET", "/echo").status == 200
    assert not w.old.saw("/ahead")


def floods_of_pings_end_their_connection(w):
    flood(w, frame(6, 0, 0, b"12345678") * 100_000)


def floods_of_settings_end_their_connection(w):
    flood(w, frame(4, 0, 0) * 100_000)


def floods_of_priorities_end_their_connection(w):
    flood(w, frame(2, 0, 1, b"\0\0\0\3\x10") * 100_000)


def floods_of_continuations_end_their_connection(w):
    head = bytes.fromhex("828684410473686f70")
    before = w.door.rss_kb()
    flood(w, frame(1, 1, 1, head) + frame(9, 0, 1, b"\x00\x01a\x01b") * 200_000)
    assert w.door.rss_kb() - before < 50_000


def floods_of_empty_data_end_their_connection(w):
    head = bytes.fromhex("838684410473686f70")
    flood(w, frame(1, 4, 1, head) + frame(0, 0, 1) * 200_000)


def rapid_resets_end_their_connection(w):
    head = bytes.fromhex("828684410473686f70")
    before = len(w.old.heads)
    data = b"".join(frame(1, 5, at, head) + frame(3, 0, at, b"\0\0\0\x08")
                    for at in range(1, 40_001, 2))
    flood(w, data)
    assert len(w.old.heads) - before < 3000, len(w.old.heads) - before


def frames_out_of_order_are_answered_by_goaway(w):
    head = bytes.fromhex("828684410473686f70")
    for name, data in [
        ("data before a head", frame(0, 0, 1, b"x")), ("an even stream", frame(1, 5, 2, head)),
        ("continuation alone", frame(9, 4, 1, head)), ("a push", frame(5, 4, 1, b"\0\0\0\2")),
        ("window of nothing", frame(8, 0, 0, b"\0\0\0\0")), ("a long ping", frame(6, 0, 0, b"9" * 9)),
        ("too long a frame", frame(0, 0, 1, b"0" * 20_000)), ("no compression", frame(1, 5, 1, b"\xff" * 40)),
        ("a stream's settings", frame(4, 0, 1)), ("windows over", frame(8, 0, 0, b"\x7f\xff\xff\xff")),
        ("a reset before its stream", frame(3, 0, 1, b"\0\0\0\x08")),
    ]:
        client = Client2(w.door.ports["old"])
        client.sock.sendall(data)
        client.end()
        assert client.goaway, (name, client.goaway)


def what_only_begins_like_http2_is_http1(w):
    client = Client1(w.door.ports["old"])
    client.send("PRI * HTTP/2.0\r\nHost: shop\r\n\r\n")
    assert client.rest().startswith(b"HTTP/1.1 505 ")
    client = Client1(w.door.ports["old"])
    client.send("P")
    time.sleep(0.05)
    client.send("OST /echo HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\n\r\na")
    assert client.response()[2] == b"a"
    client = Client1(w.door.ports["old"])
    client.send(PREFACE + b"GET / HTTP/1.1\r\n\r\n")
    rest = client.rest()
    assert b"HTTP/1.1" not in rest, rest


def who_is_idle_gets_goaway(w):
    client = Client2(w.door.ports["short"])
    client.ask("GET", "/echo")
    begun = time.monotonic()
    client.end()
    assert client.goaway == 0, client.goaway
    assert time.monotonic() - begun < 14


def tls_agrees_on_what_both_speak(w):
    folder = w.door.work
    client = Client2(w.door.ports["secret"], believes(folder))
    seen = bytes(client.ask("GET", "/seen").body).decode()
    assert "x-forwarded-proto https" in seen and ":scheme https" in seen, seen
    old = Client1(w.door.ports["secret"])
    old.sock = believes(folder, ["http/1.1"]).wrap_socket(old.sock, server_hostname="shop.example")
    assert old.sock.selected_alpn_protocol() == "http/1.1"
    assert old.ask("GET /seen HTTP/1.1\r\nHost: shop\r\n\r\n")[0] == 200
    client = Client2(w.door.ports["secretold"], believes(folder))
    assert bytes(client.ask("POST", "/echo", body=b"x" * 100_000).body) == b"x" * 100_000


def an_endpoint_that_does_not_prove_its_name_gets_nothing(w):
    client = Client1(w.door.ports["stranger"])
    status = client.ask("GET /stranger HTTP/1.1\r\nHost: shop\r\n\r\n")[0]
    assert status in (502, 503), status
    assert not w.secret.saw("/stranger")


def a_door_that_closes_says_goaway_and_streams_end(w):
    idle, busy = Client2(w.door.ports["old"]), Client2(w.door.ports["old"])
    idle.ask("GET", "/echo")
    at = busy.begin("POST", "/echo", [("content-length", "4")], False)
    wait(lambda: any("POST /echo" in head and "Content-Length: 4" in head for head in w.old.heads),
         "it arrives")
    w.door.tell()
    idle.end()
    assert idle.goaway == 0, idle.goaway
    busy.until(lambda: busy.goaway == 0)
    busy.send(at, b"body", True)
    answer = busy.answer(at)
    assert (answer.status, bytes(answer.body)) == (200, b"body")
    busy.end()
    wait(lambda: not w.door.lives(), "the daemon ends", 20)
    assert w.door.process.returncode == 0, w.door.process.returncode


LAST = [a_door_that_closes_says_goaway_and_streams_end]
CASES = [case for name, case in list(globals().items())
         if callable(case) and getattr(case, "__module__", "") == __name__
         and case.__code__.co_varnames[:1] == ("w",) and case.__code__.co_argcount == 1
         and case not in LAST]
