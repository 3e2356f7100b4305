"""The targets under test, each behind the same few calls: prepare, start, stop.

A contender owns its processes and files. Every process is a direct child, is ended by its own pid, and runs on
the CPU that it is told. Nothing here measures.
"""

import ctypes
import json
import os
import secrets
import signal
import socket
import subprocess
import time

IQN = "iqn.2026-11.org.replblk:bench"


class ContenderError(Exception):
    pass


class Placement:
    """Where processes run: the target alone on one CPU, generator and secondary together on the other.

    Generator and targets go before everything else on the machine, where that is allowed: each in a session of its
    own, since with autogroups a nice value counts only inside its session, and each session has one too.
    """

    NICE = -20
    SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG

    def __init__(self, realtime):
        cpus = sorted(os.sched_getaffinity(0))
        self.load_cpu = cpus[0]
        self.target_cpu = cpus[1] if len(cpus) > 1 else cpus[0]
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.privileged = os.geteuid() == 0
        self.realtime = realtime
        if realtime and not self.privileged:
            raise ContenderError("--realtime needs root")

    def spawn(self, arguments, cpu, **options):
        def settle():
            # If this program is killed, its targets must not stay behind.
            self.libc.prctl(self.SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
            os.sched_setaffinity(0, {cpu})
            os.setsid()
            if self.realtime:
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            elif self.privileged:
                os.setpriority(os.PRIO_PROCESS, 0, self.NICE)
                try:
                    with open("/proc/self/autogroup", "w") as file:
                        file.write(str(self.NICE))
                except OSError:
                    pass  # a kernel without autogroups: the process's own value does it

        return subprocess.Popen(arguments, preexec_fn=settle, **options)

    def describe(self):
        return (
            f"targets (and our primary) on CPU {self.target_cpu}; generator and our secondary on CPU "
            f"{self.load_cpu}; {'SCHED_FIFO' if self.realtime else f'nice {self.NICE if self.privileged else 0}'} "
            f"for all of them"
        )


def free_port(address="127.0.0.1"):
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


def write_backing_file(path, size_bytes, keep_cached):
    """Preallocated and written once, so that no contender pays for first writes into holes."""
    chunk = secrets.token_bytes(1 << 20)
    with open(path, "wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, size_bytes)
        for offset in range(0, size_bytes, len(chunk)):
            file.write(chunk[: min(len(chunk), size_bytes - offset)])
        os.fsync(file.fileno())
        if not keep_cached:
            # Pages left in the cache make direct I/O flush and invalidate them, over and over.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def make_sparse_file(path, size_bytes):
    with open(path, "wb") as file:
        os.ftruncate(file.fileno(), size_bytes)


def accepts_direct_io(directory):
    """Whether files there can be opened with O_DIRECT (tmpfs can't before Linux 6.6)."""
    path = os.path.join(directory, f"direct-io-probe.{os.getpid()}")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600))
        return True
    except OSError:
        return False
    finally:
        if os.path.exists(path):
            os.unlink(path)


def run_command(arguments, timeout=20):
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise ContenderError(f"{' '.join(arguments)}: exit {done.returncode}: {(done.stderr + done.stdout).strip()}")
    return done.stdout


def retry(action, seconds, what):
    limit = time.monotonic() + seconds
    while True:
        try:
            return action()
        except (ContenderError, OSError, subprocess.TimeoutExpired) as error:
            if time.monotonic() > limit:
                raise ContenderError(f"{what}: {error}") from error
            time.sleep(0.02)


class Contender:
    name = ""
    lun = 0
    # Whether SYNCHRONIZE CACHE reaches the backing file; a target that answers it without doing it is no yardstick.
    flushes = True

    def __init__(self, placement, directory, log_directory):
        self.placement = placement
        self.directory = directory
        self.log_directory = log_directory
        self.processes = {}  # label: Popen, the one that serves first
        self.files = []
        self.portal = None

    def make_file(self, suffix, size_bytes, sparse, keep_cached):
        path = os.path.join(self.directory, f"{self.name}.{suffix}")
        self.files.append(path)
        if sparse:
            make_sparse_file(path, size_bytes)
        else:
            write_backing_file(path, size_bytes, keep_cached)
        return path

    def launch(self, label, arguments, cpu):
        log = os.path.join(self.log_directory, f"{self.name}.{label}.log")
        with open(log, "ab") as output:
            self.processes[label] = self.placement.spawn(
                arguments, cpu, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        return self.processes[label]

    def check_alive(self):
        for label, process in self.processes.items():
            if process.poll() is not None:
                raise ContenderError(f"{self.name}: {label} ended by itself with code {process.returncode}")

    def pids(self):
        return {label: process.pid for label, process in self.processes.items()}

    def stop(self):
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(self.stop_signal)
        for process in self.processes.values():
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes = {}

    def remove_files(self):
        for path in self.files:
            if os.path.exists(path):
                os.unlink(path)
        self.files = []

    stop_signal = signal.SIGTERM


class Tgt(Contender):
    """Debian's tgtd in the foreground, one process per backing-store type, with its own control socket."""

    lun = 1  # LUN 0 of tgt is its controller
    stop_signal = signal.SIGKILL  # it ignores SIGTERM while targets exist, and has no state to save
    PARAMETERS = {
        "MaxRecvDataSegmentLength": "262144",
        "MaxXmitDataSegmentLength": "262144",
        "FirstBurstLength": "262144",
        "MaxBurstLength": "1048576",
        "InitialR2T": "No",
        "ImmediateData": "Yes",
        "MaxOutstandingR2T": "1",
        "HeaderDigest": "None",
        "DataDigest": "None",
    }

    def __init__(self, store_type, io_threads, *arguments):
        super().__init__(*arguments)
        self.store_type = store_type
        self.io_threads = io_threads
        self.name = f"tgt-{store_type}"
        # tgtd's control socket is a file named by this number, 32767 at most; two tgtd must not share one.
        self.control_port = str(1000 + os.getpid() % 15000 * 2 + (1 if store_type == "aio" else 0))

    @property
    def flushes(self):
        # bs_aio.c answers SYNCHRONIZE CACHE without a system call.
        return self.store_type != "aio"

    def prepare(self, size_bytes, sparse=False):
        self.path = self.make_file("disk", size_bytes, sparse, keep_cached=self.store_type == "rdwr")

    def start(self):
        port = free_port()
        self.portal = f"127.0.0.1:{port}"
        arguments = ["tgtd", "-f", "-C", self.control_port, "--iscsi", f"portal=127.0.0.1:{port}"]
        if self.store_type == "rdwr":
            arguments += ["-t", str(self.io_threads)]
        self.launch("target", arguments, self.placement.target_cpu)
        retry(lambda: self.admin("--op", "show", "--mode", "target"), 5, "tgtd does not answer")
        self.admin("--op", "new", "--mode", "target", "--tid", "1", "-T", IQN)
        for key, value in self.PARAMETERS.items():
            self.admin("--op", "update", "--mode", "target", "--tid", "1", "-n", key, "-v", value)
        self.admin("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", self.path,
                   "-E", self.store_type)
        self.admin("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")

    def admin(self, *arguments):
        self.check_alive()
        return run_command(["tgtadm", "-C", self.control_port, "--lld", "iscsi", *arguments])

    def stop(self):
        super().stop()
        for name in (f"socket.{self.control_port}", f"socket.{self.control_port}.lock"):
            path = os.path.join("/var/run/tgtd", name)
            if os.path.exists(path):
                os.unlink(path)


class NullTarget(Contender):
    """Answers at once and stores nothing: what the generator, the kernel and the loopback allow at most."""

    name = "null"

    def __init__(self, program, *arguments):
        super().__init__(*arguments)
        self.program = program

    def prepare(self, size_bytes, sparse=False):
        pass

    def start(self):
        port = free_port()
        self.portal = f"127.0.0.1:{port}"
        self.launch("target", [self.program, str(port)], self.placement.target_cpu)
        retry(lambda: socket.create_connection(("127.0.0.1", port)).close(), 5, "null_target does not listen")


class Replblk(Contender):
    """Our daemon(s), made from one node.conf. Subclasses say how many nodes."""

    addresses = ()
    buffered = False  # io_mode: direct wherever the file system has it

    def __init__(self, binaries, *arguments):
        super().__init__(*arguments)
        self.daemon, self.control = binaries

    def nodes(self):
        return [f"bench-{number + 1}" for number in range(len(self.addresses))]

    def prepare(self, size_bytes, sparse=False):
        # Room for the internal metadata behind the data.
        size_bytes += 64 << 20
        direct = not self.buffered and accepts_direct_io(self.directory)
        disks = []
        for node in self.nodes():
            path = self.make_file(f"{node}.disk", size_bytes, sparse, keep_cached=not direct)
            disks.append(path)
        self.config = os.path.join(self.log_directory, f"{self.name}.{os.path.basename(self.directory)}.conf")
        self.write_config(disks, "direct" if direct else "buffered")
        for node in self.nodes():
            self.ctl(node, "create-md", "--force")

    def write_config(self, disks, io_mode):
        nodes = self.nodes()
        secret = self.config + ".secret"
        with open(secret, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
        os.chmod(secret, 0o600)
        self.iscsi_port = free_port(self.addresses[0])
        lines = ["cluster {", '  name: "bench"']
        for node, address in zip(nodes, self.addresses):
            # The path of a Unix socket is limited to 107 bytes: the log folder's own is short.
            admin_socket = os.path.join(self.log_directory, f"{self.name}.{node}.sock")
            lines.append(f'  node {{ name: "{node}" address: "{address}" admin_socket: "{admin_socket}" }}')
        if len(nodes) > 1:
            lines.append(f'  secret_file: "{secret}"')
            lines.append(f"  replication_port: {free_port(self.addresses[0])}")
        lines.append("}")
        lines.append("resource {")
        lines.append('  name: "bench"')
        portals = " ".join(
            f'portal {{ address: "{address}" on: "{node}" }}' for node, address in zip(nodes, self.addresses)
        )
        lines.append(f'  target {{ iqn: "{IQN}" port: {self.iscsi_port} {portals} }}')
        disks = " ".join(
            f'disk {{ on: "{node}" path: "{path}" io_mode: {io_mode} }}' for node, path in zip(nodes, disks)
        )
        lines.append(f"  volume {{ lun: 0 {disks} }}")
        lines.append("}")
        with open(self.config, "w") as file:
            file.write("\n".join(lines) + "\n")

    def ctl(self, node, *arguments, timeout=20):
        return run_command([self.control, "--config", self.config, "--node", node, *arguments], timeout)

    def start(self):
        self.start_daemons()
        retry(self.promote, 10, "promotion")
        self.wait_in_sync()

    def start_daemons(self):
        for number, node in enumerate(self.nodes()):
            label = "target" if number == 0 else "secondary"
            cpu = self.placement.target_cpu if number == 0 else self.placement.load_cpu
            self.launch(label, [self.daemon, "--config", self.config, "--node", node], cpu)
        self.portal = f"{self.addresses[0]}:{self.iscsi_port}"

    def promote(self):
        self.check_alive()
        return self.ctl(self.nodes()[0], "primary", "--force", "bench", timeout=5)

    def wait_in_sync(self):
        pass

    def wait_connected(self):
        def connected():
            self.check_alive()
            states = list(find_values(self.status(self.nodes()[0]), "connection-state"))
            if states != ["Connected"]:
                raise ContenderError(f"connection is {states or 'unknown'}")

        retry(connected, 20, "connection between the nodes")

    def status(self, node):
        return json.loads(self.ctl(node, "status", "--json", timeout=5))


class ReplblkSingle(Replblk):
    name = "replblk-single"
    addresses = ("127.0.0.1",)


class ReplblkBuffered(ReplblkSingle):
    """Through the page cache, as tgt's rdwr: like against like."""

    name = "replblk-buffered"
    buffered = True


class ReplblkPair(Replblk):
    name = "replblk-pair"
    addresses = ("127.0.0.1", "127.0.0.2")

    def wait_in_sync(self):
        def in_sync():
            self.check_alive()
            states = list(find_values(self.status(self.nodes()[0]), "peer-disk-state"))
            if not states or any(state != "UpToDate" for state in states):
                raise ContenderError(f"peer disk is {states or 'unknown'}")

        retry(in_sync, 60, "first synchronisation")


def find_values(document, key):
    """Every value of this key anywhere in a JSON document."""
    if isinstance(document, dict):
        for name, value in document.items():
            if name == key:
                yield value
            else:
                yield from find_values(value, key)
    elif isinstance(document, list):
        for value in document:
            yield from find_values(value, key)
