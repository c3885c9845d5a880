"""Endpoints that do as their requests say, and write down what they got."""
import socket
import ssl
import threading

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

LIMIT = 10.0


class Closed(Exception):
    """The other side closed its connection."""


def listen():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(200)
    return listener


class Endpoint:
    """Serves each of its connections in a thread."""

    def __init__(self, tls=None):
        self.listener = listen()
        self.port = self.listener.getsockname()[1]
        self.tls = tls
        self.lock = threading.Lock()
        self.heads, self.sent, self.gone, self.connections = [], 0, [], 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            sock, _ = self.listener.accept()
            threading.Thread(target=self.run, args=(sock,), daemon=True).start()

    def run(self, sock):
        sock.settimeout(60)
        try:
            if self.tls:
                sock = self.tls.wrap_socket(sock, server_side=True)
            self.connections += 1
            self.serve(sock)
        except (OSError, Closed, ValueError, h2.exceptions.ProtocolError):
            pass
        finally:
            sock.close()

    def saw(self, path):
        """Heads of requests to a path."""
        with self.lock:
            return [head for head in self.heads if f"{path} " in head or f"{path}\n" in head]


class Http1(Endpoint):
    """By hand, so that nothing mends what is wrong."""

    def serve(self, sock):
        self.unread = None
        buffer = bytearray()
        while True:
            head = take(sock, buffer, b"\r\n\r\n")
            with self.lock:
                self.heads.append(head.decode("latin1"))
            lines = head.decode("latin1").split("\r\n")
            method, target, _ = lines[0].split(" ")
            fields = {}
            for line in lines[1:]:
                if ":" in line:
                    name, value = line.split(":", 1)
                    fields[name.lower()] = value.strip()
            self.answer(sock, buffer, (method, target.split("?")[0], fields, head))

    def answer(self, sock, buffer, request):
        method, path, fields, head = request
        if path in ("/ws", "/udp"):
            switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
            switched += f"Upgrade: {fields['upgrade']}\r\nSec-WebSocket-Accept: x\r\n\r\n"
            sock.sendall(switched.encode() + bytes(buffer))
            while data := sock.recv(65536):
                sock.sendall(data)
            raise Closed
        if path == "/stalled":
            self.stalled = threading.Event()
            self.stalled.wait(LIMIT)
        body, trailers = read_body(sock, buffer, fields)
        if path == "/never":
            sock.recv(1)
            self.gone.append(path)
            raise Closed
        if path == "/half":
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf!")
            raise Closed
        if path == "/close":
            raise Closed
        if path == "/big":
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 30000000\r\n\r\n")
            for _ in range(3000):
                sock.sendall(b"." * 10000)
                self.sent += 10000
        elif path == "/trailers":
            sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: sum\r\n\r\n"
                         b"3;a=b\r\none\r\n00A\r\n0123456789\r\n0\r\nsum: 7\r\n\r\n")
        elif path == "/hints":
            sock.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
            reply(sock, b"a", method)
        elif path == "/204":
            sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        elif path == "/304":
            sock.sendall(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n")
        elif path == "/seen":
            reply(sock, head, method)
        elif path == "/trailed":
            reply(sock, trailers, method)
        else:
            reply(sock, body, method)


def reply(sock, body, method):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    sock.sendall(head + (b"" if method == "HEAD" else body))


def take(sock, buffer, end):
    """Bytes up to an end, which is there too."""
    while end not in buffer:
        more = sock.recv(65536)
        if not more:
            raise Closed
        buffer += more
    at = buffer.index(end) + len(end)
    taken = bytes(buffer[:at])
    del buffer[:at]
    return taken


def exactly(sock, buffer, count):
    while len(buffer) < count:
        more = sock.recv(65536)
        if not more:
            raise Closed
        buffer += more
    taken = bytes(buffer[:count])
    del buffer[:count]
    return taken


def read_body(sock, buffer, fields):
    if "transfer-encoding" in fields:
        body = b""
        while size := int(take(sock, buffer, b"\r\n").split(b";")[0], 16):
            body += exactly(sock, buffer, size)
            exactly(sock, buffer, 2)
        trailers = b""
        while (line := take(sock, buffer, b"\r\n")) != b"\r\n":
            trailers += line
        return body, trailers
    return exactly(sock, buffer, int(fields.get("content-length", 0))), b""


class Http2(Endpoint):
    """Frames by Python's h2; one request may be answered with what breaks its rules."""

    window = 65535
    streams_max = 100

    def serve(self, sock):
        config = h2.config.H2Configuration(
            client_side=False, header_encoding="utf-8", validate_outbound_headers=False,
            normalize_outbound_headers=False)
        conn = h2.connection.H2Connection(config)
        conn.local_settings = h2.settings.Settings(client=False, initial_values={
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: self.window,
            h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: self.streams_max,
            h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
        conn.initiate_connection()
        sock.sendall(conn.data_to_send())
        streams = {}
        while data := sock.recv(65536):
            for event in conn.receive_data(data):
                self.event(sock, conn, streams, event)
            self.pump(conn, streams)
            sock.sendall(conn.data_to_send())

    def event(self, sock, conn, streams, event):
        if isinstance(event, h2.events.RequestReceived):
            fields = dict(event.headers)
            path = fields.get(":path", "")
            with self.lock:
                self.heads.append("\n".join(f"{name} {value}" for name, value in event.headers))
            streams[event.stream_id] = stream = Stream(path)
            self.begin(sock, conn, event.stream_id, stream)
        elif isinstance(event, h2.events.DataReceived):
            conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.stream_id in streams:
                streams[event.stream_id].waiting += event.data
                if streams[event.stream_id].path == "/refuse-late":
                    conn.reset_stream(event.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
                    streams[event.stream_id].is_over = True
        elif isinstance(event, h2.events.TrailersReceived):
            if event.stream_id in streams:
                streams[event.stream_id].trailers += event.headers
        elif isinstance(event, h2.events.StreamEnded):
            if event.stream_id in streams:
                streams[event.stream_id].has_ended = True
        elif isinstance(event, h2.events.StreamReset):
            stream = streams.pop(event.stream_id, None)
            if stream:
                self.gone.append(stream.path)

    def begin(self, sock, conn, at, stream):
        path, once = stream.path, len(self.saw(stream.path)) == 1
        if path == "/never":
            stream.is_over = True
        elif path == "/refuse-late":
            pass
        elif path.startswith("/refuse-always") or (path.startswith("/refuse-once") and once):
            conn.reset_stream(at, h2.errors.ErrorCodes.REFUSED_STREAM)
            stream.is_over = True
        elif path == "/reset":
            conn.reset_stream(at, h2.errors.ErrorCodes.INTERNAL_ERROR)
            stream.is_over = True
        elif path.startswith("/goaway-once") and once:
            conn.close_connection(last_stream_id=at - 2)
            sock.sendall(conn.data_to_send())
            raise Closed
        elif path.startswith("/close-once") and once:
            raise Closed
        elif path == "/ping-flood":
            for _ in range(20000):
                conn.ping(b"12345678")
                sock.sendall(conn.data_to_send())
        elif path == "/raw":
            # A field that speaks about another connection.
            conn.send_headers(at, [(":status", "200"), ("connection", "close")], True)
            stream.is_over = True
        elif path == "/upper":
            conn.send_headers(at, [(":status", "200"), ("Evil", "1")], True)
            stream.is_over = True
        elif path == "/statusless":
            conn.send_headers(at, [("server", "x")], True)
            stream.is_over = True
        elif path == "/liar":
            conn.send_headers(at, [(":status", "200"), ("content-length", "3")])
            conn.send_data(at, b"12345", True)
            stream.is_over = True
        elif path == "/204":
            conn.send_headers(at, [(":status", "204")], True)
            stream.is_over = True
        elif path == "/failed":
            conn.send_headers(at, [(":status", "200"), ("grpc-status", "5")], True)
            stream.is_over = True
        else:
            conn.send_headers(at, [(":status", "200"), ("content-type", "application/grpc")])
            if path == "/big":
                stream.waiting, stream.has_ended = b"." * 3_000_000, True
            elif path == "/seen":
                stream.waiting = self.heads[-1].encode()

    def pump(self, conn, streams):
        """Sends back what came, as far as the window goes."""
        for at, stream in list(streams.items()):
            if stream.is_over:
                continue
            try:
                while stream.waiting:
                    room = min(conn.local_flow_control_window(at), conn.max_outbound_frame_size)
                    if room <= 0:
                        break
                    conn.send_data(at, stream.waiting[:room])
                    self.sent += min(room, len(stream.waiting))
                    stream.waiting = stream.waiting[room:]
                if stream.has_ended and not stream.waiting:
                    trailers = [("grpc-status", "0"), *stream.trailers]
                    conn.send_headers(at, trailers, end_stream=True)
                    del streams[at]
            except (h2.exceptions.ProtocolError, KeyError):
                streams.pop(at, None)


class Stream:
    def __init__(self, path):
        self.path, self.waiting, self.trailers = path, b"", []
        self.has_ended = self.is_over = False


def shows(folder, protocols):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/shop.crt", f"{folder}/shop.key")
    context.set_alpn_protocols(protocols)
    return context
