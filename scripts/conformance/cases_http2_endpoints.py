"""Clients of both protocols before endpoints of HTTP/2."""
import time

from cases_http1 import POST, echoes, get
from door import Client1, Client2, wait


def a_client_of_http1_gets_what_http2_says(w):
    client, before = Client1(w.door.ports["new"]), w.new.connections
    status, fields, body, trailers = client.ask(POST.format("/echo"), b"3\r\nabc\r\n0\r\nsum: 7\r\n\r\n")
    assert (status, body) == (200, b"abc"), (status, body)
    assert b"grpc-status: 0" in trailers and b"sum: 7" in trailers, trailers
    assert fields["content-type"] == "application/grpc"
    seen = client.ask(get("/seen"))[2].decode()
    for wanted in [":method GET", ":authority shop", ":scheme http", "x-forwarded-for 127.0.0.1"]:
        assert wanted in seen, seen
    for never in ["connection", "host ", "transfer-encoding", "keep-alive"]:
        assert f"\n{never}" not in seen.lower(), seen
    assert client.ask(get("/204"))[0] == 204
    assert len(client.ask(get("/big"))[2]) == 3_000_000
    assert w.new.connections - before <= 1, w.new.connections


def calls_of_grpc_go_both_ways_at_once(w):
    client = Client2(w.door.ports["new"])
    at = client.begin("POST", "/echo", [("te", "trailers")], False)
    answer = client.streams[at]
    for count in range(1, 4):
        client.send(at, b"ping")
        client.until(lambda: bytes(answer.body) == b"ping" * count)
    client.conn.send_headers(at, [("sum", "7")], end_stream=True)
    client.flush()
    client.answer(at)
    assert answer.trailers == {"grpc-status": "0", "sum": "7"}, answer.trailers
    failed = client.ask("POST", "/failed", body=b"x")
    assert failed.fields["grpc-status"] == "5" and failed.has_ended


def what_http2_has_no_words_for_is_refused_at_once(w):
    client, begun = Client1(w.door.ports["new"]), time.monotonic()
    client.send("GET /a`b HTTP/1.1\r\nHost: shop\r\n\r\n")
    assert client.rest().startswith(b"HTTP/1.1 400 ") and time.monotonic() - begun < 8
    client = Client1(w.door.ports["new"])
    assert client.ask("GET /seen?a=` HTTP/1.1\r\nHost: shop\r\n\r\n")[0] == 200


def what_was_taken_in_part_may_be_sent_again_by_its_client(w):
    client = Client2(w.door.ports["new"])
    at = client.begin("POST", "/refuse-late", is_all=False)
    client.send(at, b"some")
    answer = client.answer(at)
    assert (answer.status, answer.reset) == (None, 7), (answer.status, answer.reset)
    assert len(w.new.saw("/refuse-late")) == 1
    old = Client1(w.door.ports["new"])
    head = "POST /refuse-late HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\n\r\nsome"
    status, fields, _, _ = old.ask(head)
    assert (status, fields["retry-after"]) == (503, "1"), status


def narrow_windows_and_few_streams_are_enough(w):
    client = Client2(w.door.ports["narrow"])
    asked = [client.begin("POST", "/echo", is_all=False) for _ in range(10)]
    for at in asked:
        client.send(at, b"0123456789" * 20, True)
    for at in asked:
        answer = client.answer(at)
        got = (answer.status, bytes(answer.body), answer.reset)
        assert got == (200, b"0123456789" * 20, None), got


def what_was_refused_unseen_is_sent_once_more(w):
    client = Client2(w.door.ports["new"])
    for path in ["/refuse-once-a", "/goaway-once-a"]:
        assert client.ask("POST", path).status == 200, path
        assert len(w.new.saw(path)) == 2, path
    assert client.ask("GET", "/close-once-a").status == 200
    assert client.ask("POST", "/close-once-b").status == 502
    assert len(w.new.saw("/close-once-b")) == 1
    assert client.ask("POST", "/refuse-always").status == 502
    assert len(w.new.saw("/refuse-always")) == 3
    assert client.ask("POST", "/reset").status == 502
    assert len(w.new.saw("/reset")) == 1


def endpoints_that_break_the_rules_are_502(w):
    client = Client2(w.door.ports["new"])
    for path in ["/raw", "/upper", "/statusless"]:
        answer = client.ask("POST", path)
        assert answer.status == 502, (path, answer.status, answer.reset)
    answer = client.ask("POST", "/liar")
    assert answer.status == 502 or answer.reset is not None, answer.status
    old = Client1(w.door.ports["new"])
    assert old.ask("POST /raw HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")[0] == 502
    assert client.ask("GET", "/echo").status == 200


def a_flood_of_an_endpoint_ends_its_connection(w):
    client = Client2(w.door.ports["new"])
    assert client.ask("POST", "/ping-flood").status == 502
    assert client.ask("GET", "/echo").status == 200


def an_endpoint_of_http2_that_never_answers_is_504_and_told(w):
    before = w.new.gone.count("/never")
    client = Client2(w.door.ports["newshort"])
    begun = time.monotonic()
    assert client.ask("GET", "/never").status == 504
    assert 0.9 < time.monotonic() - begun < 14
    wait(lambda: w.new.gone.count("/never") > before, "the endpoint learns of it")


def a_client_that_leaves_resets_its_stream_only(w):
    before, seen = w.new.gone.count("/never"), len(w.new.saw("/never"))
    old, other = Client1(w.door.ports["new"]), Client2(w.door.ports["new"])
    old.send(get("/never"))
    wait(lambda: len(w.new.saw("/never")) > seen, "it arrives")
    connections = w.new.connections
    old.sock.close()
    wait(lambda: w.new.gone.count("/never") > before, "the endpoint learns of it")
    assert other.ask("GET", "/echo").status == 200 and w.new.connections == connections


def a_websocket_of_http1_echoes_at_an_endpoint_of_http2(w):
    client = Client1(w.door.ports["new"])
    client.ask(get("/echo"))
    client.send("GET /ws HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
    status, fields, _, _ = client.response()
    assert status == 101 and fields["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", fields
    echoes(client)


def many_clients_share_few_connections(w):
    before = w.new.connections
    clients = [Client1(w.door.ports["new"]) for _ in range(50)]
    for client in clients:
        client.send(get("/echo"))
    for client in clients:
        assert client.response()[0] == 200
    assert w.new.connections - before <= 1, w.new.connections


CASES = [case for name, case in list(globals().items())
         if callable(case) and getattr(case, "__module__", "") == __name__
         and case.__code__.co_varnames[:1] == ("w",) and case.__code__.co_argcount == 1]
