"""A real daemon with HTTP services, and clients that write what they like."""
import os
import signal
import socket
import ssl
import subprocess
import tempfile
import time

import h2.config
import h2.connection
import h2.events
import h2.settings

from peers import LIMIT, Closed, exactly, listen, take

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SHORT = 'head_timeout = "1s"\nanswer_timeout = "1s"\nkeep_alive = "1s"\nidle_timeout = "2s"\n'


def free_port():
    with listen() as listener:
        return listener.getsockname()[1]


class Door:
    """One node, with a service for each group of endpoints."""

    def __init__(self, tandem):
        self.tandem, self.ports, self.services = tandem, {}, []
        self.work = tempfile.mkdtemp(prefix="tandem-conformance.")
        os.chmod(self.work, 0o755)
        self.process = None
        self.certificates()

    def certificates(self):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-subj", "/CN=shop.example", "-addext",
             "subjectAltName=DNS:shop.example,IP:127.0.0.1", "-addext",
             "basicConstraints=critical,CA:FALSE", "-keyout", "shop.key", "-out", "shop.crt"],
            cwd=self.work, check=True, capture_output=True)

    def service(self, name, endpoints, more=""):
        self.ports[name] = free_port()
        upstreams = ", ".join(f'"127.0.0.1:{port}"' for port in endpoints)
        self.services.append(
            f'[services.{name}]\nkind = "http"\nclustering = "load-balanced"\n'
            f'replication = "none"\nlisten = {self.ports[name]}\nupstreams = [{upstreams}]\n{more}\n')

    def start(self):
        config = f"{self.work}/tandem.toml"
        with open(config, "w", encoding="utf-8") as file:
            file.write(f'cluster = "conformance"\n[nodes.a]\naddress = "127.0.0.1:{free_port()}"\n'
                       f'api = "127.0.0.1:{free_port()}"\n' + "".join(self.services))
        words = ["--config", config, "--node", "a", "--dir", f"{self.work}/a"]
        subprocess.run([self.tandem, "init", *words], check=True, stdout=subprocess.DEVNULL)
        self.log = open(f"{self.work}/log", "wb")
        self.process = subprocess.Popen([self.tandem, "node", *words], stdout=self.log,
                                        stderr=self.log)
        for port in self.ports.values():
            wait(lambda port=port: is_open(port), "the door opens")

    def rss_kb(self):
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as status:
            return int(next(line for line in status if line.startswith("VmRSS")).split()[1])

    def lives(self):
        return self.process.poll() is None

    def tell(self):
        """Asks it to end."""
        self.process.send_signal(signal.SIGTERM)

    def end(self):
        if self.process and self.lives():
            self.process.kill()
            self.process.wait()

    def tail(self):
        with open(f"{self.work}/log", encoding="utf-8", errors="replace") as log:
            return log.read()[-4000:]


def is_open(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def wait(what, why, limit=LIMIT):
    end = time.monotonic() + limit
    while not what():
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit} s: {why}")
        time.sleep(0.005)


class Client1:
    """Bytes."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port), LIMIT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray()

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode("latin1"))

    def response(self, is_head=False):
        """Status, fields, body, trailers; Closed if it ends too soon."""
        head = take(self.sock, self.buffer, b"\r\n\r\n").decode("latin1")
        lines = head.split("\r\n")
        status = int(lines[0].split(" ")[1])
        fields = {}
        for line in lines[1:]:
            if ":" in line:
                name, value = line.split(":", 1)
                fields[name.lower()] = value.strip()
        if is_head or status < 200 or status in (204, 304):
            return status, fields, b"", b""
        if "transfer-encoding" in fields:
            from peers import read_body
            body, trailers = read_body(self.sock, self.buffer, fields)
            return status, fields, body, trailers
        if "content-length" in fields:
            return status, fields, exactly(self.sock, self.buffer, int(fields["content-length"])), b""
        return status, fields, self.rest(), b""

    def ask(self, head, body=b""):
        self.send(head.encode("latin1") + body)
        return self.response()

    def rest(self):
        """All until its end, however that comes."""
        data = bytes(self.buffer)
        try:
            while more := self.sock.recv(65536):
                data += more
        except ConnectionError:
            pass
        return data


class Client2:
    """Frames by Python's h2."""

    def __init__(self, port, tls=None, window=65535, sock=None):
        self.sock = sock or socket.create_connection(("127.0.0.1", port), LIMIT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.sock = tls.wrap_socket(self.sock, server_hostname="shop.example")
            assert self.sock.selected_alpn_protocol() == "h2"
        config = h2.config.H2Configuration(
            header_encoding="utf-8", validate_outbound_headers=False,
            normalize_outbound_headers=False)
        self.conn = h2.connection.H2Connection(config)
        self.conn.local_settings = h2.settings.Settings(
            client=True, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window,
                                         h2.settings.SettingCodes.ENABLE_PUSH: 0})
        self.conn.initiate_connection()
        self.streams, self.is_closed, self.takes = {}, False, True
        self.unread, self.goaway = b"", None
        self.flush()

    def flush(self):
        self.sock.sendall(self.conn.data_to_send())

    def begin(self, method, path, fields=(), is_all=True):
        at = self.conn.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "http"), (":authority", "shop"), (":path", path)]
        self.conn.send_headers(at, head + list(fields), end_stream=is_all)
        self.streams[at] = Answer()
        self.flush()
        return at

    def open(self, path, protocol="websocket"):
        at = self.conn.get_next_available_stream_id()
        self.conn.send_headers(at, [
            (":method", "CONNECT"), (":protocol", protocol), (":scheme", "http"),
            (":authority", "shop"), (":path", path), ("sec-websocket-version", "13")])
        self.streams[at] = Answer()
        self.flush()
        return at

    def send(self, at, data, is_all=False):
        """As the window allows."""
        while data:
            room = min(self.conn.local_flow_control_window(at), self.conn.max_outbound_frame_size)
            if room <= 0:
                self.read()
                continue
            now, data = data[:room], data[room:]
            self.conn.send_data(at, now, end_stream=is_all and not data)
            self.flush()
        return at

    def read(self):
        try:
            data = self.sock.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self.is_closed = True
            raise Closed
        for event in self.conn.receive_data(self.without_goaway(data)):
            self.event(event)
        try:
            self.flush()
        except ConnectionError:
            pass

    def without_goaway(self, data):
        """Its library would take nothing after one, though streams go on."""
        self.unread += data
        frames = b""
        while len(self.unread) >= 9:
            end = 9 + int.from_bytes(self.unread[:3], "big")
            if len(self.unread) < end:
                break
            one, self.unread = self.unread[:end], self.unread[end:]
            if one[3] == 7:
                self.goaway = int.from_bytes(one[13:17], "big")
            else:
                frames += one
        return frames

    def event(self, event):
        answer = self.streams.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.SettingsAcknowledged) or answer is None:
            pass
        elif isinstance(event, h2.events.InformationalResponseReceived):
            answer.interim.append(dict(event.headers)[":status"])
        elif isinstance(event, h2.events.ResponseReceived):
            answer.fields = dict(event.headers)
            answer.status = int(answer.fields[":status"])
        elif isinstance(event, h2.events.DataReceived):
            answer.body += event.data
            if self.takes:
                self.conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            else:
                answer.owed += event.flow_controlled_length
        elif isinstance(event, h2.events.TrailersReceived):
            answer.trailers = dict(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            answer.has_ended = True
        elif isinstance(event, h2.events.StreamReset):
            answer.reset = event.error_code

    def until(self, what):
        while not what():
            self.read()

    def answer(self, at):
        answer = self.streams[at]
        self.until(lambda: answer.has_ended or answer.reset is not None)
        return answer

    def ask(self, method, path, fields=(), body=None, trailers=None):
        at = self.begin(method, path, fields, body is None)
        if body is not None:
            self.send(at, body, trailers is None)
            if trailers is not None:
                self.conn.send_headers(at, trailers, end_stream=True)
                self.flush()
        return self.answer(at)

    def end(self):
        """Reads to the end of the connection."""
        try:
            while True:
                self.read()
        except (Closed, OSError, h2.exceptions.ProtocolError):
            self.is_closed = True


class Answer:
    def __init__(self):
        self.interim, self.status, self.fields, self.body = [], None, {}, b""
        self.trailers, self.has_ended, self.reset, self.owed = None, False, None, 0


def frame(kind, flags, stream, payload=b""):
    """One that no library would write."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def believes(folder, protocols=("h2", "http/1.1")):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(f"{folder}/shop.crt")
    context.set_alpn_protocols(list(protocols))
    return context
