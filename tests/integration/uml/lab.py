"""The bench the initiator test stands on: network namespaces, and processes inside them that never outlive the test.

Not responsible for iSCSI or for replication. Used by guest.py, targets.py and initiator_test.py.
Invariant: whatever is created here is registered with the Lab at once, so close() removes it, whatever failed.
The processes die with the driver, too, should it be killed.
"""

import ctypes
import glob
import os
import shutil
import signal
import subprocess
import tempfile
import time


class TestFailure(Exception):
    """The test has failed; the text says what was expected and what was seen."""


def wait_until(what, condition, timeout_s, interval_s=0.1):
    """Returns condition()'s first true value; fails with `what` when timeout_s have passed."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TestFailure(f"{what}: not within {timeout_s} s")
        time.sleep(interval_s)


def enter_namespace(name):
    """This process, from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY)
    if libc.setns(descriptor, 0) != 0:
        raise TestFailure(f"setns {name}: {os.strerror(ctypes.get_errno())}")
    os.close(descriptor)


class Lab:
    """Namespaces around one bridge, a scratch folder, and every process started. Close it once, always."""

    def __init__(self):
        self.tag = f"rbu{os.getpid()}"
        self.folder = tempfile.mkdtemp(prefix="replblk-uml-")
        self._processes = []
        self._namespaces = []
        self.lan = self._add_namespace("lan")
        self.ip(self.lan, "link add br0 type bridge")
        self.ip(self.lan, "link set br0 up")

    def path(self, name):
        return os.path.join(self.folder, name)

    def command(self, argv, namespace=None, timeout_s=20, check=True):
        """Runs a short host command; its output is part of the message when it fails."""
        if namespace:
            argv = ["ip", "netns", "exec", namespace] + argv
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, timeout=timeout_s)
        except subprocess.TimeoutExpired as late:
            raise TestFailure(f"{' '.join(argv)}: not finished within {timeout_s} s") from late
        if check and done.returncode != 0:
            raise TestFailure(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}")
        return done

    def ip(self, namespace, words, check=True):
        return self.command(["ip", "-n", namespace] + words.split(), check=check)

    def add_host(self, name, addresses):
        """A namespace with one cable to the bridge; `addresses` are given to its eth0."""
        namespace = self._add_namespace(name)
        self.ip(self.lan, f"link add to-{name} type veth peer name eth0 netns {namespace}")
        self.ip(self.lan, f"link set to-{name} master br0 up")
        self.ip(namespace, "link set lo up")
        self.ip(namespace, "link set eth0 up")
        for address in addresses:
            self.ip(namespace, f"addr add {address} dev eth0")
        return namespace

    def add_tap(self, name):
        self.ip(self.lan, f"tuntap add dev {name} mode tap")
        self.ip(self.lan, f"link set {name} master br0 up")

    def start(self, name, argv, namespace, pass_fds=(), env=None):
        """Starts a process of its own group in `namespace`; what it prints goes to <name>.log of the scratch folder."""
        log = open(self.path(f"{name}.log"), "ab")
        with log:
            process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", namespace] + argv,
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=pass_fds, env=env,
                                       start_new_session=True)
        self._processes.append((name, process))
        return process

    def log_tail(self, name, lines=30):
        try:
            with open(self.path(f"{name}.log"), "r", errors="replace") as log:
                return "".join(log.readlines()[-lines:])
        except OSError as missing:
            return str(missing)

    def log_names(self):
        return sorted({name for name, _ in self._processes})

    def save_logs(self, folder):
        os.makedirs(folder, exist_ok=True)
        for log in glob.glob(self.path("*.log")):
            shutil.copy(log, folder)

    def close(self):
        """Kills what is left (by process group), then removes the namespaces and the folder."""
        for _, process in reversed(self._processes):
            _kill_group(process.pid)
            process.wait()
        for _, process in self._processes:
            wait_until(f"process group {process.pid} is gone", lambda: not _kill_group(process.pid), 10)
        for namespace in self._namespaces:
            subprocess.run(["ip", "netns", "del", namespace], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _add_namespace(self, name):
        namespace = f"{self.tag}-{name}"
        self.command(["ip", "netns", "add", namespace])
        self._namespaces.append(namespace)
        return namespace


def _kill_group(leader):
    """False when nobody of the group is left."""
    try:
        os.killpg(leader, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False
