#!/usr/bin/env python3
"""The etcd arbiter against real etcds on loopback, and against servers that are none.

Claims are granted and refused; one whose answer is lost is recognised when it is made again; etcd is killed, stopped and comes
back, loses its majority, wants passwords and certificates; servers answer nonsense, or never. Every question is answered within
its time, and one whose outcome is not known says so.
"""

import argparse
import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

KEY = "/replblk/store1/r0"
TIMEOUT_MS = 1000
# A busy machine is slow to wake anybody up; a question that waits for ever takes longer than that.
SLACK_S = 4.0


class TestFailure(Exception):
    pass


def check(found, wanted, what):
    if found != wanted:
        raise TestFailure(f"{what}: {found!r} instead of {wanted!r}")


def check_in(part, whole, what):
    if part not in whole:
        raise TestFailure(f"{what}: {part!r} is not in {whole!r}")


def free_ports(count):
    """Of this moment; nobody else picks from the ephemeral range by number."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Etcd:
    """One member. `cluster`: (name, peer port) of all members."""

    def __init__(self, folder, name="m", cluster=None, port=None, tls=None, wants_certificate=False):
        self.port = port or free_ports(1)[0]
        self.folder, self.name, self.tls, self.wants_certificate = folder, name, tls, wants_certificate
        self.cluster = cluster or [(name, free_ports(1)[0])]
        self.process = None

    def start(self):
        peer = dict(self.cluster)[self.name]
        scheme = "https" if self.tls else "http"
        words = ["etcd", "--name", self.name, "--data-dir", os.path.join(self.folder, self.name), "--log-level", "error",
                 "--logger", "zap",
                 "--listen-client-urls", f"{scheme}://127.0.0.1:{self.port}", "--advertise-client-urls", f"{scheme}://127.0.0.1:{self.port}",
                 "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
                 "--initial-cluster", ",".join(f"{name}=http://127.0.0.1:{port}" for name, port in self.cluster)]
        if self.tls:
            words += ["--cert-file", self.tls + ".pem", "--key-file", self.tls + ".key"]
        if self.wants_certificate:
            words += ["--client-cert-auth", "--trusted-ca-file", os.path.join(os.path.dirname(self.tls), "ca.pem")]
        with open(os.path.join(self.folder, self.name + ".log"), "ab") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: R1732
        return self

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def call(self, path, **body):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/v3/{path}", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=5) as response:
            return json.load(response)

    def wait(self):
        """Until it has a leader and can be listened to."""
        end = time.monotonic() + 30
        while True:
            try:
                if self.tls:
                    socket.create_connection(("127.0.0.1", self.port), 1).close()
                else:
                    self.call("kv/range", key="AA==")
                return self
            except OSError as problem:
                if time.monotonic() > end or self.process.poll() is not None:
                    raise TestFailure(f"etcd {self.name} does not start: {problem}") from problem
                time.sleep(0.1)


class Client:
    """arbiter_client.cpp: one node."""

    program = None

    def __init__(self, *endpoints, timeout_ms=TIMEOUT_MS, **options):
        words = [Client.program, "--timeout-ms", str(timeout_ms)]
        for endpoint in endpoints:
            words += ["--port", str(getattr(endpoint, "port", endpoint))]
        for name, value in options.items():
            words += ["--" + name.replace("_", "-")] + ([] if value is True else [value])
        self.timeout_s = timeout_ms / 1000
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: R1732
        OPEN.append(self)

    def send(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self):
        return self.process.stdout.readline().strip()

    def __call__(self, line, rounds=1):
        """`rounds`: a claim asks two questions, which have a time limit each."""
        begin = time.monotonic()
        self.send(line)
        answer = self.answer()
        elapsed = time.monotonic() - begin
        if not answer:
            raise TestFailure(f"{line}: the client has ended with {self.process.wait()}")
        if elapsed > rounds * self.timeout_s + SLACK_S:
            raise TestFailure(f"{line}: answered after {elapsed:.1f} s: {answer}")
        return answer

    def close(self):
        self.process.stdin.close()
        try:
            code = self.process.wait(15)
        except subprocess.TimeoutExpired as problem:
            self.process.kill()
            raise TestFailure("a client does not end") from problem
        self.process.stdout.close()
        check(code, 0, "how a client ends")


OPEN = []


class Server:
    """A TCP server on loopback; `serve(connection)` runs in a thread for each."""

    def __init__(self, serve):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.serve, self.connections = serve, []
        threading.Thread(target=self._accept, daemon=True).start()
        OPEN.append(self)

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection):
        with contextlib.suppress(OSError):
            self.serve(connection)

    def close(self):
        # shutdown() ends the accept() in the other thread; close() alone would not.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def read_request(connection):
    text = b""
    while b"\r\n\r\n" not in text:
        more = connection.recv(65536)
        if not more:
            raise OSError("ended")
        text += more
    head, body = text.split(b"\r\n\r\n", 1)
    length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def answering(text):
    def serve(connection):
        read_request(connection)
        connection.sendall(text)
        connection.close()
    return serve


def http(body, status="200 OK"):
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class Proxy(Server):
    """To an etcd; while `loses` is a part of a request's path, the answers to such requests are lost."""

    def __init__(self, etcd):
        super().__init__(self._relay)
        self.etcd, self.loses, self.lost_count = etcd, None, 0

    def _relay(self, connection):
        request = read_request(connection)
        with socket.create_connection(("127.0.0.1", self.etcd.port), 5) as upstream:
            upstream.sendall(request)
            answer = read_request(upstream)
        if self.loses is not None and self.loses.encode() in request.split(b"\r\n")[0]:
            self.lost_count += 1
        else:
            connection.sendall(answer)
        # etcd's side is over, so this one is, too.
        connection.shutdown(socket.SHUT_RDWR)


def close_all():
    while OPEN:
        OPEN.pop().close()


# ---- what is tested -------------------------------------------------------------------------------------------------


def claims(etcd, _folder):
    """The rules of a claim, over one transaction each."""
    a, b = Client(etcd), Client(etcd)
    check(a("read"), "no record at 0", "nothing is there")
    check(a("claim 0 1 1"), "no record", "a claim without a record")
    check(a("replace 0 1 3"), "replaced", "the record is made")
    check(b("replace 0 1 3"), "not replaced", "it is made once")
    read = a("read")
    check_in("record 1 3 0 at ", read, "the record is there")
    revision = read.split()[-1]
    stored = etcd.call("kv/range", key=base64.b64encode(KEY.encode()).decode())["kvs"][0]
    check(json.loads(base64.b64decode(stored["value"]))["members"], [0, 1], "a person can read it")

    check(a("claim 0 1 1", 2), "granted 2", "the first claim")
    check(b("claim 1 1 1", 2), "refused 2 1", "the other node's claim")
    check(b(f"replace {revision} 9 2"), "not replaced", "a claim on what has changed since")
    check(a("claim 0 1 2", 2), "granted 3", "the same node's claim again, for instance after its answer was lost")
    check(b("claim 1 7 7", 2), "granted 8", "the other node's claim, once both have agreed on a higher term")
    check_in("record 8 2 1 at ", a("read"), "the record")

    revision = a("read").split()[-1]
    a.send(f"replace {revision} 9 1")
    b.send(f"replace {revision} 9 2")
    check(sorted([a.answer(), b.answer()]), ["not replaced", "replaced"], "two claims at once")

    other = Client(etcd, id="76543210-89ab-4cde-8f01-23456789abcd")
    check(other("claim 0 1 1"), "no record", "a claim on another pair's record")


def persons_decision(etcd, _folder):
    a, b = Client(etcd), Client(etcd, id="76543210-89ab-4cde-8f01-23456789abcd")
    check(a("overwrite 5 1"), "overwritten", "a record is made by force")
    read = a("read")
    check_in("record 5 1 0 at ", read, "the forced record")
    check(a("overwrite 5 1"), "overwritten", "by force again")
    check(a("overwrite 4 1"), "overwritten", "by force with a term that has passed")
    check(a("read"), read, "which changes nothing")
    check(a("overwrite 4 2"), "overwritten", "by force for the other node")
    check_in("record 5 2 1 at ", a("read"), "whose term does not go back")
    check(b("overwrite 2 1"), "overwritten", "by force for another pair")
    check_in("record 5 1 0 at ", b("read"), "whose record it is now")
    check(a("claim 1 9 9"), "no record", "a claim of the pair before")
    key = base64.b64encode(KEY.encode()).decode()
    etcd.call("kv/put", key=key, value=base64.b64encode(b"what is this").decode())
    check_in("no record at ", a("read"), "something else under the key")
    check(a("claim 0 9 9"), "no record", "a claim on it")
    check(a("overwrite 3 1"), "overwritten", "it is replaced by force")
    check_in("record 3 1 0 at ", a("read"), "the record that replaced it")


def lost_answers(etcd, _folder):
    proxy = Proxy(etcd)
    a, b = Client(proxy), Client(etcd)
    check(a("replace 0 1 3"), "replaced", "the record is made")
    proxy.loses = "txn"
    answer = a("claim 0 1 1", 2)
    check_in("failed, may have happened: etcd: 127.0.0.1:", answer, "a claim whose answer is lost")
    check(proxy.lost_count, 1, "how often the claim was sent")
    check(b("claim 1 1 1", 2), "refused 2 1", "the claim was made")
    proxy.loses = None
    check(a("claim 0 1 2", 2), "granted 3", "who made it makes it again")
    proxy.loses = "range"
    check_in("failed, nothing happened: ", a("read"), "a lost reading")
    good = Client(proxy, etcd)
    check_in("record 3 1 0 at ", good("read"), "a lost reading is read elsewhere")
    proxy.loses = "txn"
    both = Client(proxy, etcd)
    check_in("failed, may have happened: ", both("overwrite 9 1", 1), "a person's decision whose answer is lost")
    check(both("overwrite 9 1"), "overwritten", "it is found made when asked again")
    check_in("record 9 1 0 at ", b("read"), "and is made once")


def death_and_pause(etcd, _folder):
    a = Client(etcd)
    check(a("replace 0 1 3"), "replaced", "the record is made")
    etcd.kill()
    check_in("failed, nothing happened: etcd: 127.0.0.1:%d: cannot be connected to: Connection refused" % etcd.port, a("claim 0 1 1"),
             "a claim while etcd is dead")
    etcd.start().wait()
    check(a("claim 0 1 1", 2), "granted 2", "a claim when it is back")

    revision = a("read").split()[-1]
    etcd.signal(signal.SIGSTOP)
    begin = time.monotonic()
    check_in("no answer within ", a("read"), "a reading while etcd stands still")
    if time.monotonic() - begin < 0.9:
        raise TestFailure("a time limit that nobody waited for")
    check_in("failed, may have happened: ", a(f"replace {revision} 5 1"), "a claim while etcd stands still")
    etcd.signal(signal.SIGCONT)
    etcd.wait()
    # It may have been made once etcd went on, or never; whoever goes on from what is read is right in both cases.
    read = a("read")
    if read not in (f"record 2 1 0 at {revision}", f"record 5 1 0 at {int(revision) + 1}"):
        raise TestFailure(f"what became of the claim: {read}")
    term = int(read.split()[1])
    check(a("claim 0 1 5", 2), f"granted {max(term, 5) + 1}", "the claim is made again")
    check(a(f"replace {revision} 9 2"), "not replaced", "a claim on what was replaced")


def endpoints_in_turn(etcd, _folder):
    silent = Server(lambda connection: connection.recv(1) and time.sleep(60))
    garbage = Server(answering(b"SSH-2.0-OpenSSH_9.2\r\n"))
    dead = free_ports(1)[0]
    a = Client(dead, garbage, silent, etcd, timeout_ms=2000)
    check(a("read"), "no record at 0", "the last of four endpoints answers")
    begin = time.monotonic()
    for _ in range(5):
        check(a("read"), "no record at 0", "it goes on answering")
    if time.monotonic() - begin > 2.5:
        raise TestFailure("the endpoint that answered is not asked first")
    check(len(silent.connections), 1, "how often the silent one was asked")
    # A change that may have arrived somewhere is not sent elsewhere.
    b = Client(silent, etcd)
    check_in("failed, may have happened: ", b("replace 0 1 3"), "a claim that a silent server took")
    check(a("read"), "no record at 0", "it was not made elsewhere")
    check(b("replace 0 1 3"), "replaced", "the next one goes to the next endpoint")


def no_etcd_at_all(_etcd, _folder):
    def drip(connection):
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(b"X: y\r\n")
            time.sleep(0.05)

    header = b'{"header":{"revision":"7"},'
    servers = {
        "nothing at all": lambda connection: connection.close(),
        "it hangs up": lambda connection: read_request(connection) and connection.close(),
        "bytes": answering(bytes(range(256)) * 300),
        "half an answer": answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
        "an empty object": answering(http(b"{}")),
        "an empty page": answering(http(b"")),
        "a page": answering(http(b"<html>It works!</html>")),
        "an error page": answering(http(b"<html>no</html>", "502 Bad Gateway")),
        "an answer without end": answering(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 100000),
        "deep nesting": answering(http(header + b'"kvs":' + b"[" * 30000)),
        "a record of another key": answering(http(header + b'"kvs":[{"key":"AA==","mod_revision":"3","value":"AA=="}]}')),
        "headers without end": drip,
        "silence": lambda connection: time.sleep(60),
    }
    for name, serve in servers.items():
        server = Server(serve)
        a = Client(server, timeout_ms=600)
        check_in("failed, nothing happened: etcd: 127.0.0.1:", a("read"), f"{name}: a reading")
        if name == "a record of another key":
            continue  # In a transaction's answer it is not looked at.
        check_in("failed, may have happened: etcd: 127.0.0.1:", a("replace 0 1 3"), f"{name}: a claim")
    # An etcd that says no says so of everybody: nothing can have happened.
    server = Server(answering(http(b'{"error":"x","message":"etcdserver: permission denied","code":7}', "403 Forbidden")))
    a = Client(server)
    check_in("failed, nothing happened: ", a("replace 0 1 3"), "a claim that is forbidden")
    server = Server(answering(http(b'{"error":"x","message":"etcdserver: request timed out","code":14}', "503 Unavailable")))
    a = Client(server)
    check_in("failed, may have happened: ", a("replace 0 1 3"), "a claim that etcd itself lost sight of")
    check_in("etcdserver: request timed out", a("read"), "etcd's own words")


def answers_in_pieces(_etcd, _folder):
    """As any HTTP server may send them."""
    body = b'{"header":{"revision":"7"}}'

    def byte_by_byte(text):
        def serve(connection):
            read_request(connection)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in text:
                connection.sendall(bytes([byte]))
            time.sleep(30)
        return serve

    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n" + body[:5] + b"\r\n%x\r\n" % len(body[5:]) + body[5:]
    chunked += b"\r\n0\r\n\r\n"
    for name, serve in {"with a length": byte_by_byte(http(body)), "in chunks": byte_by_byte(chunked),
                        "until the end": answering(b"HTTP/1.1 200 OK\r\n\r\n" + body),
                        "a long one": answering(http(b'{"header":{"revision":"7"},"more":"' + b"x" * 60000 + b'"}'))}.items():
        a = Client(Server(serve))
        check(a("read"), "no record at 0", f"an answer {name}")
        check(a("replace 0 1 3"), "not replaced", f"another answer {name}")


def passwords(etcd, _folder):
    def b64(text):
        return base64.b64encode(text.encode()).decode()

    etcd.call("auth/user/add", name="root", password="root's")
    etcd.call("auth/role/add", name="root")
    etcd.call("auth/user/grant", user="root", role="root")
    etcd.call("auth/role/add", name="store1")
    etcd.call("auth/role/grant", name="store1",
              perm={"permType": "READWRITE", "key": b64("/replblk/store1/"), "range_end": b64("/replblk/store10")})
    for user in ("store1", "guest"):
        etcd.call("auth/user/add", name=user, password=f"{user}'s \"word\"")
    etcd.call("auth/user/grant", user="store1", role="store1")
    etcd.call("auth/enable")
    a = Client(etcd, user="store1", password="store1's \"word\"")
    check(a("replace 0 1 3"), "replaced", "the record is made by its user")
    check(a("claim 0 1 1", 2), "granted 2", "a claim by its user")
    wrong = Client(etcd, user="store1", password="wrong")
    check_in("failed, nothing happened: etcd: 127.0.0.1:%d: the user store1 is refused: etcdserver: authentication failed" % etcd.port,
             wrong("replace 0 1 3"), "a wrong password")
    check_in("failed, nothing happened: ", Client(etcd)("replace 0 1 3"), "nobody's claim")
    guest = Client(etcd, user="guest", password="guest's \"word\"")
    check_in("etcdserver: permission denied", guest("replace 0 1 3"), "a guest's claim")
    # Tokens are in etcd's memory.
    etcd.kill()
    etcd.start()
    end = time.monotonic() + 20
    while not (answer := a("claim 0 1 2", 2)).startswith("granted"):
        if time.monotonic() > end:
            raise TestFailure(f"no new token is fetched: {answer}")
        time.sleep(0.2)
    check(answer, "granted 3", "a claim with a new token")
    # Changing users makes all tokens old.
    token = etcd.call("auth/authenticate", name="root", password="root's")["token"]
    request = urllib.request.Request(f"http://127.0.0.1:{etcd.port}/v3/auth/user/add",
                                     json.dumps({"name": "new", "password": "x"}).encode(), {"Authorization": token})
    urllib.request.urlopen(request, timeout=5).close()
    check(a("claim 0 1 3", 2), "granted 4", "a claim after the users have changed")
    check_in("record 4 1 0 at ", a("read"), "made once")


def certificates(_etcd, folder):
    def openssl(*words):
        subprocess.run(["openssl", *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True,
                       cwd=folder)

    def authority(name):
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                "-keyout", f"{name}.key", "-out", f"{name}.pem")

    def certificate(name, subject_alternative):
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key",
                "-out", f"{name}.csr")
        with open(os.path.join(folder, f"{name}.ext"), "w", encoding="ascii") as extensions:
            extensions.write(f"subjectAltName={subject_alternative}\nextendedKeyUsage=serverAuth,clientAuth\n")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                "-extfile", f"{name}.ext", "-out", f"{name}.pem")

    authority("ca")
    authority("other")
    certificate("address", "IP:127.0.0.1")
    certificate("name", "DNS:etcd.example")
    certificate("node", "DNS:node-a")

    def file_of(name):
        return os.path.join(folder, name)

    etcds = [Etcd(folder, name, tls=file_of(name), wants_certificate=name == "name") for name in ("address", "name")]
    try:
        by_address, by_name = [etcd.start() for etcd in etcds]
        for etcd in etcds:
            etcd.wait()
        a = Client(by_address, tls=True, ca=file_of("ca.pem"), timeout_ms=3000)
        check(a("replace 0 1 3"), "replaced", "over TLS")
        check(a("claim 0 1 1", 2), "granted 2", "a claim over TLS")
        check_in("certificate verify failed", Client(by_address, tls=True, ca=file_of("other.pem"))("replace 0 1 3"), "another authority")
        check_in("certificate verify failed", Client(by_address, tls=True)("read"), "an authority that the system does not know")
        check_in("certificate verify failed",
                 Client(by_address, tls=True, ca=file_of("ca.pem"), server_name="etcd.example")("read"), "another name")
        check_in("failed, nothing happened: ", Client(by_address, tls=True, ca=file_of("other.pem"))("replace 0 1 3"),
                 "a claim that was never sent")
        check_in("failed, ", Client(by_address)("read"), "HTTP where HTTPS is spoken")
        plain = Server(lambda connection: connection.sendall(http(b"{}")))
        check_in("TLS failed", Client(plain, tls=True, ca=file_of("ca.pem"))("replace 0 1 3"), "HTTPS where HTTP is spoken")

        own = {"cert": file_of("node.pem"), "key": file_of("node.key")}
        b = Client(by_name, tls=True, ca=file_of("ca.pem"), server_name="etcd.example", timeout_ms=3000, **own)
        check(b("replace 0 1 3"), "replaced", "with the node's certificate")
        check_in("certificate verify failed", Client(by_name, tls=True, ca=file_of("ca.pem"), **own)("read"),
                 "a certificate for a name instead of the address")
        check_in("failed, ", Client(by_name, tls=True, ca=file_of("ca.pem"), server_name="etcd.example")("read"), "no certificate")
        for bad in ({"ca": file_of("ca.key")}, {"ca": file_of("ca.pem"), "cert": file_of("ca.key"), "key": file_of("ca.key")},
                    {"ca": file_of("ca.pem"), "cert": file_of("node.pem"), "key": file_of("ca.key")}):
            words = [Client.program, "--port", "1", "--tls"]
            for name, value in bad.items():
                words += ["--" + name, value]
            done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=20, check=False)
            check(done.returncode, 2, f"files that cannot be used: {bad}")
            check_in("cluster.arbiter.etcd.tls.", done.stdout, "what is said of them")
    finally:
        close_all()
        for etcd in etcds:
            etcd.kill()


def majority(_etcd, folder):
    """A member that is cut off from the others must not answer by itself: what it has may be old."""
    cluster = list(zip(("x", "y", "z"), free_ports(3)))
    etcds = [Etcd(folder, name, cluster) for name, _ in cluster]
    try:
        for etcd in etcds:
            etcd.start()
        for etcd in etcds:
            etcd.wait()
        a = Client(*etcds, timeout_ms=3000)
        check(a("replace 0 1 3"), "replaced", "the record is made")
        etcds[0].kill()
        end = time.monotonic() + 20
        while not (answer := a("claim 0 1 1", 2)).startswith("granted"):
            if time.monotonic() > end:
                raise TestFailure(f"no claim is granted by two of three: {answer}")
        etcds[1].kill()
        check_in("failed, ", a("read"), "a reading of one of three")
        last = Client(etcds[2])
        check_in("failed, ", last("read"), "a reading of the last one")
        check_in("failed, may have happened: ", last("replace 0 7 2"), "a claim on the last one")
        etcds[1].start()
        end = time.monotonic() + 20
        while not (answer := a("read")).startswith("record "):
            if time.monotonic() > end:
                raise TestFailure(f"no reading after the majority is back: {answer}")
        check_in(" 1 0 at ", answer, "the claim that was granted")
    finally:
        close_all()
        for etcd in etcds:
            etcd.kill()


SCENARIOS = [claims, persons_decision, lost_answers, death_and_pause, endpoints_in_turn, no_etcd_at_all, answers_in_pieces, passwords,
             certificates, majority]
WITHOUT_ETCD = {no_etcd_at_all, answers_in_pieces, certificates, majority}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--client", required=True, help="the program arbiter_client")
    parser.add_argument("scenario", nargs="*", help="all when none is named")
    options = parser.parse_args()
    Client.program = os.path.abspath(options.client)
    if shutil.which("etcd") is None:
        print("etcd is not installed (Debian: etcd-server)", file=sys.stderr)
        return 1
    for scenario in SCENARIOS:
        if options.scenario and scenario.__name__ not in options.scenario:
            continue
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="replblk-arbiter-") as folder:
            etcd = None if scenario in WITHOUT_ETCD else Etcd(folder).start().wait()
            try:
                scenario(etcd, folder)
                close_all()
            except TestFailure as problem:
                print(f"{scenario.__name__}: {problem}", file=sys.stderr)
                return 1
            finally:
                with contextlib.suppress(TestFailure):
                    close_all()
                if etcd is not None:
                    if etcd.process is not None:
                        etcd.signal(signal.SIGCONT)
                    etcd.kill()
        print(f"{scenario.__name__}: {time.monotonic() - begin:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
