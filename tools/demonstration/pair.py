"""A pair of replblk daemons on this machine: files, configuration, processes, and what their control sockets say.

Not responsible for what is done with them (live.py, tour.py) nor for iSCSI (initiator.py).
Invariant: a process or file made here is gone after close(), whatever happened; the daemons die with this process, too.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ADDRESSES = {"a": "127.0.0.1", "b": "127.0.0.2"}
IQN = "iqn.2026-11.org.example:demo"
ISCSI_PORT = 3260
REPLICATION_PORT = 7789
SOCKET_PATH_MAX = 107

CONFIG = """\
# Made by tools/demo; gone when the demo ends.
cluster {{
  name: "demo"
  node {{ name: "a" address: "{addresses[a]}" admin_socket: "{sockets}/a.sock" buffer_memory_mib: 32 }}
  node {{ name: "b" address: "{addresses[b]}" admin_socket: "{sockets}/b.sock" buffer_memory_mib: 32 }}
  secret_file: "{folder}/secret"
  replication_port: {replication_port}
  {cluster_settings}
}}
resource {{
  name: "demo"
  target {{
    iqn: "{iqn}"
    port: {iscsi_port}
    portal {{ on: "a" address: "{addresses[a]}" }}
    portal {{ on: "b" address: "{addresses[b]}" }}
  }}
  volume {{
    lun: 0
    disk {{ on: "a" path: "{folder}/disk-a" io_mode: {io_mode} }}
    disk {{ on: "b" path: "{folder}/disk-b" io_mode: {io_mode} }}
  }}
}}
"""


class DemoError(Exception):
    """It cannot go on; the text says why, for the person who started it."""


def other(node):
    return "b" if node == "a" else "a"


def wait_until(what, condition, timeout_s, interval_s=0.05):
    """Returns condition()'s first true value."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise DemoError(f"{what}: not within {timeout_s} s")
        time.sleep(interval_s)


def is_port_free(port):
    for address in ADDRESSES.values():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
                probe.listen()
            except OSError:
                return False
    return True


def choose_port(wanted):
    """`wanted` or, when it is taken, the first free one of the same ending: 3260, 13260, 23260, ..."""
    for port in range(wanted, 65536, 10000):
        if is_port_free(port):
            return port
    raise DemoError(f"no free port on 127.0.0.1 and 127.0.0.2 among {wanted}, {wanted + 10000}, ...: stop what listens there "
                    "(ss -ltnp shows it)")


def port_holder(port):
    """"NAME, process 123" of who listens on `port`, or None when this user may not know."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as lines:
                for fields in (line.split() for line in lines):
                    if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port:
                        inodes.add(f"socket:[{fields[9]}]")
        except (OSError, ValueError, IndexError):
            continue
    for pid in filter(str.isdigit, os.listdir("/proc")) if inodes else ():
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}") in inodes:
                    with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as name:
                        return f"{name.read().strip()}, process {pid}"
        except OSError:
            continue
    return None


def accepts_direct_io(folder):
    path = os.path.join(folder, "probe")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT, 0o600))
        return True
    except OSError:
        return False
    finally:
        if os.path.exists(path):
            os.unlink(path)


class Pair:
    def __init__(self, binaries, parent, volume_bytes, iscsi_port=ISCSI_PORT, replication_port=REPLICATION_PORT, addresses=None,
                 namespaces=None, cluster_settings="", death_signal="TERM"):
        """`namespaces`: of the network, by node; none: this process's own. `death_signal`: what daemons get when this process dies."""
        self.addresses = addresses or ADDRESSES
        self._namespaces = namespaces or {}
        self._cluster_settings = cluster_settings
        self._death_signal = death_signal
        self.iscsi_port = iscsi_port
        self.replication_port = replication_port
        self.volume_bytes = volume_bytes
        self._replblkd = self._binary(binaries, "replblkd")
        self.replblkctl = self._binary(binaries, "replblkctl")
        self._processes = {}
        self._socket_folder = None
        self.folder = self._make_folder(parent)
        self.config = self.path("node.conf")

    @staticmethod
    def _binary(folder, name):
        path = os.path.join(os.path.abspath(folder), name)
        if not os.access(path, os.X_OK):
            raise DemoError(f"there is no {path}: build it first, with tools/dev build")
        return path

    @staticmethod
    def _make_folder(parent):
        """PARENT/PID; folders of demos that were killed are removed on the way."""
        os.makedirs(parent, exist_ok=True)
        for name in filter(str.isdigit, os.listdir(parent)):
            if not os.path.exists(f"/proc/{name}") or name == str(os.getpid()):
                shutil.rmtree(os.path.join(parent, name), ignore_errors=True)
        folder = os.path.join(os.path.abspath(parent), str(os.getpid()))
        os.mkdir(folder, 0o700)
        return folder

    def path(self, name):
        return os.path.join(self.folder, name)

    def disk(self, node):
        return self.path(f"disk-{node}")

    def url(self, node, lun="/0"):
        return f"iscsi://{self.addresses[node]}:{self.iscsi_port}" + (f"/{IQN}{lun}" if lun is not None else "")

    def create(self):
        """Files, configuration and metadata of both nodes."""
        sockets = self.folder
        if len(os.path.join(sockets, "a.sock.lock")) > SOCKET_PATH_MAX:
            sockets = self._socket_folder = tempfile.mkdtemp(prefix="replblk-demo-")
        with open(self.path("secret"), "w", opener=lambda path, flags: os.open(path, flags, 0o600), encoding="ascii") as file:
            file.write(os.urandom(24).hex() + "\n")
        for node in self.addresses:
            with open(self.disk(node), "wb") as file:
                file.truncate(self.volume_bytes)
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(CONFIG.format(addresses=self.addresses, sockets=sockets, folder=self.folder, iqn=IQN, iscsi_port=self.iscsi_port,
                                     replication_port=self.replication_port, cluster_settings=self._cluster_settings,
                                     io_mode="direct" if accepts_direct_io(self.folder) else "buffered"))
        for node in self.addresses:
            self.ctl(node, "create-md")

    def start(self, node):
        """Returns when the daemon answers on its control socket and has opened its disk, or cannot."""
        log = open(self.path(f"{node}.log"), "ab")
        namespace = self._namespaces.get(node)
        enter = ["ip", "netns", "exec", namespace] if namespace else []
        with log:
            # Of its own group: a Ctrl-C in the terminal must reach the demo only, which stops the daemons in order.
            process = subprocess.Popen(["setpriv", "--pdeathsig", self._death_signal, *enter, self._replblkd, "--config", self.config, "--node", node],
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self._processes[node] = process

        def answers_or_ended():
            if process.poll() is not None:
                return True
            status = self.status(node)
            return status is not None and device_of(status)["disk-state"] != "Attaching"
        wait_until(f"replblkd of node {node} answers", answers_or_ended, 20)
        if process.poll() is not None:
            hint = "" if os.geteuid() == 0 else "\nAs root it may start, if this user's limits are the reason: sudo tools/dev demo"
            raise DemoError(f"replblkd of node {node} ended at once ({self.how_ended(node)}):\n{self.log_tail(node, 5)}{hint}")

    def pid(self, node):
        return self._processes[node].pid

    def is_running(self, node):
        process = self._processes.get(node)
        return process is not None and process.poll() is None

    def how_ended(self, node):
        code = self._processes[node].poll()
        if code is None:
            return "it runs"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit {code}"

    def kill(self, node):
        """SIGKILL: the daemon gets no say."""
        self._processes[node].kill()

    def wait_dead(self, node):
        self._processes[node].wait(10)

    def stop(self, node, timeout_s=10):
        """SIGTERM, then SIGKILL when that is not obeyed in time. True when it ended by itself and well."""
        process = self._processes.get(node)
        if process is None:
            return True
        if process.poll() is not None:
            return process.returncode == 0
        process.terminate()
        try:
            return process.wait(timeout_s) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
            return False

    def ctl_words(self, node, *words):
        return [self.replblkctl, "--config", self.config, "--node", node, *words]

    def try_ctl(self, node, *words, timeout_s=15):
        """(exit code, what it printed)."""
        try:
            done = subprocess.run(self.ctl_words(node, *words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired:
            return 124, f"no answer within {timeout_s} s"
        return done.returncode, done.stdout.strip()

    def ctl(self, node, *words):
        code, text = self.try_ctl(node, *words)
        if code != 0:
            raise DemoError(f"replblkctl --node {node} {' '.join(words)}: exit {code}\n{text}")
        return text

    def status(self, node):
        """The (first) resource as `status --json` shows it, or None when the daemon does not answer."""
        return next(iter(self.statuses(node) or []), None)

    def statuses(self, node):
        """All resources, in the order of the configuration, or None."""
        try:
            done = subprocess.run(self.ctl_words(node, "status", "--json"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, timeout=5, check=False)
            return json.loads(done.stdout) if done.returncode == 0 else None
        except (subprocess.TimeoutExpired, ValueError):
            return None

    def log_tail(self, node, lines=30):
        try:
            with open(self.path(f"{node}.log"), encoding="utf-8", errors="replace") as log:
                return "".join(log.readlines()[-lines:]).rstrip()
        except OSError as missing:
            return str(missing)

    def close(self):
        """Bounded: both daemons are asked to end at the same time, and not asked twice."""
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + 10
        for process in self._processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._socket_folder:
            shutil.rmtree(self._socket_folder, ignore_errors=True)


def device_of(status):
    return status["devices"][0]


def peer_of(status):
    return status["connections"][0]


def is_in_sync(status):
    """Both copies are good and the nodes talk, as this node sees it."""
    if status is None or not status["connections"] or not peer_of(status)["peer_devices"]:
        return False
    return (device_of(status)["disk-state"] == "UpToDate" and peer_of(status)["connection-state"] == "Connected"
            and peer_of(status)["peer_devices"][0]["peer-disk-state"] == "UpToDate")
