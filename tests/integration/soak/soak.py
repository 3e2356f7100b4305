#!/usr/bin/env python3
"""Two real daemons in network namespaces of their own, initiators that write all the time, and faults: what tests/sim does in
simulated time, for the parts that it replaces (io_uring, the kernel's TCP and files, processes that are killed and stopped).

Faults are SIGKILL, SIGSTOP, partitions of the replication network (both ways, one way), orderly restarts, resets, and the changes
of role that an administrator makes when nothing has failed. Failovers are the daemons' own. There is no arbiter, so the heartbeats
have a second way that is never cut: without it a partition would be a split. At the end everything is healed, both must become
UpToDate, every sector must hold what the history allows (protocol.md I2, I3) and both copies must be equal (I4).
Not covered: loss of power, since the kernel lives on. Needs root. Prints the seed first; the daemons' own timing is not in it.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
TREE = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "uml"), os.path.join(TREE, "tools")]

from demonstration.initiator import Initiator, InitiatorError  # noqa: E402
from demonstration.pair import IQN, DemoError, Pair, is_in_sync, other  # noqa: E402
from lab import Lab, TestFailure, enter_namespace  # noqa: E402
from load import Load, numbers_in  # noqa: E402
from register import Registers, Violation  # noqa: E402
from stamp import SECTOR  # noqa: E402
from superblock import higher, read_record  # noqa: E402

OWN_MOUNTS = "--in-own-mounts"
ADDRESSES = {"a": "10.77.0.1", "b": "10.77.0.2"}
HEARTBEAT_ADDRESSES = {"a": "10.78.0.1", "b": "10.78.0.2"}
INITIATORS_ADDRESS = "10.77.0.100/24"
PORT = 3260
NODE_INDEX = {"a": 0, "b": 1}
DEVICE_BYTES = 18 << 20
HEARTBEAT_PATH = " ".join(f'end {{ on: "{node}" address: "{address}" }}' for node, address in HEARTBEAT_ADDRESSES.items())
CLUSTER_SETTINGS = ("connect_interval_ms: 200 ping_interval_ms: 400 ping_timeout_ms: 800 peer_timeout_ms: 1000 "
                    f"heartbeat {{ path {{ {HEARTBEAT_PATH} }} }}")
HEAL_MAX_S = 60
TAKEOVER_MAX_S = 15


class Soak:
    def __init__(self, lab, pair, seed, connections):
        self.lab, self.pair = lab, pair
        self.namespaces = {node: f"{lab.tag}-{node}" for node in ADDRESSES}
        self.random = random.Random(seed)
        self.counts = {}
        self.takeovers = self.switchovers = self.promotions = 0
        self.paused = set()
        self.started = time.monotonic()
        self.sectors = read_record(pair.disk("a")).volume_bytes // SECTOR
        self.registers = Registers(self.sectors)
        portals = [(address, PORT) for address in ADDRESSES.values()]
        self.loads = [Load(number, seed, portals, IQN, self.registers, self.sectors) for number in range(connections)]
        self.faults = [(self.kill_primary, 4), (self.kill_secondary, 2), (self.kill_both, 1), (self.pause, 3), (self.partition, 3),
                       (self.one_way, 2), (self.restart, 2), (self.switch_over, 2), (self.disconnect, 1), (self.reset, 1)]

    # -- the run

    def run(self, seconds):
        self.pair.ctl("a", "primary", "--force")
        self.until("the first synchronisation", self.is_healthy, HEAL_MAX_S)
        for load in self.loads:
            load.start()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.wait(self.random.uniform(0.2, 1.5))
            fault = self.random.choices(*zip(*self.faults))[0]
            self.say(fault.__name__.replace("_", " "))
            self.counts[fault.__name__] = self.counts.get(fault.__name__, 0) + 1
            fault()
            if self.random.random() < 0.6:
                self.heal()
        self.finish()

    def finish(self):
        self.say("everything is healed")
        self.heal()
        before = sum(load.writes for load in self.loads)
        self.until("writes are answered again", lambda: sum(load.writes for load in self.loads) > before + 10, HEAL_MAX_S)
        for load in self.loads:
            load.stop()
        self.until("the last commands are answered", lambda: not any(load.is_alive() for load in self.loads), HEAL_MAX_S)
        self.until("both are UpToDate, nobody writes", self.is_healthy, HEAL_MAX_S)
        self.read_everything()
        for node in ADDRESSES:
            if not self.pair.stop(node):
                raise TestFailure(f"{node} did not stop in order: {self.pair.how_ended(node)}")
        self.compare_copies()

    def read_everything(self):
        address = ADDRESSES[self.primary()]
        initiator = Initiator(address, PORT, IQN, "iqn.2026-11.org.example:soak-reader")
        for first in range(0, self.sectors, 256):
            sectors = range(first, min(first + 256, self.sectors))
            read = self.registers.begin_read(sectors)
            done = initiator.wait(initiator.read(first, len(sectors)))
            if done.status != 0:
                raise Violation(f"the last read of sector {first} failed: {done}")
            self.registers.end_read(read, numbers_in(done.data, sectors))
        initiator.log_out()

    def compare_copies(self):
        length = self.sectors * SECTOR
        with open(self.pair.disk("a"), "rb") as one, open(self.pair.disk("b"), "rb") as two:
            left, right = one.read(length), two.read(length)
        for sector, number in enumerate(numbers_in(left, range(self.sectors))):
            self.registers.check_rest(sector, number)
        if left != right:
            at = next(at for at in range(0, length, SECTOR) if left[at:at + SECTOR] != right[at:at + SECTOR])
            raise Violation(f"I4: the copies differ in sector {at // SECTOR}: {numbers_in(left[at:at + SECTOR], [at // SECTOR])[0]:#x} on a, "
                            f"{numbers_in(right[at:at + SECTOR], [at // SECTOR])[0]:#x} on b")

    def wait(self, seconds):
        """The administrator looks after the pair meanwhile."""
        deadline = time.monotonic() + seconds
        while True:
            self.check()
            self.administer()
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.1))

    def until(self, what, condition, limit_s):
        deadline = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline:
                states = "\n".join(f"--- {node}\n{self.pair.try_ctl(node, 'status')[1]}" for node in ADDRESSES)
                raise TestFailure(f"I9: {what}: not within {limit_s} s\n{states}")
            self.wait(0.1)

    def check(self):
        for load in self.loads:
            if load.violation:
                raise Violation(load.violation)
        for node in ADDRESSES:
            if node in self.pair.started and not self.pair.is_running(node) and node not in self.pair.taken_down:
                raise TestFailure(f"the daemon of {node} ended by itself: {self.pair.how_ended(node)}")

    def say(self, text):
        print(f"{time.monotonic() - self.started:8.2f} {text}", flush=True)

    def summary(self):
        faults = " ".join(f"{name}×{count}" for name, count in sorted(self.counts.items()))
        return (f"writes acknowledged {sum(load.writes for load in self.loads)} lost {sum(load.lost_writes for load in self.loads)} "
                f"refused {sum(load.refused for load in self.loads)} reads {sum(load.reads for load in self.loads)} "
                f"logins {sum(load.logins for load in self.loads)}; takeovers {self.takeovers} switchovers {self.switchovers} "
                f"promotions {self.promotions}; {faults}")

    # -- the administrator

    def status(self, node):
        return self.pair.status(node) if self.pair.is_running(node) and node not in self.paused else None

    def primary(self):
        return next((node for node in ADDRESSES if (self.status(node) or {}).get("role") == "Primary"), None)

    def is_connected(self, node):
        return is_in_sync(self.status(node))

    def is_healthy(self):
        return all(self.is_connected(node) for node in ADDRESSES) and self.primary() is not None

    def may_promote(self, node):
        """Nobody else can be writing, and this copy holds every answered write."""
        if not self.pair.is_running(node) or node in self.paused:
            return False
        peer = other(node)
        if self.pair.is_running(peer):
            return all(self.is_connected(one) for one in ADDRESSES) or self.is_left_alone(node)
        mine, theirs = read_record(self.pair.disk(node)), read_record(self.pair.disk(peer))
        if mine is None or theirs is None or mine.is_inconsistent or mine.is_outdated or mine.is_created_only:
            return False
        ruling = higher(mine, theirs)
        return ruling is not None and NODE_INDEX[node] in ruling.members

    def is_left_alone(self, node):
        """The only member, and demoted; the other runs and knows that it is none."""
        status, mine, theirs = self.status(node), read_record(self.pair.disk(node)), read_record(self.pair.disk(other(node)))
        return (status is not None and mine is not None and theirs is not None and mine.members == {NODE_INDEX[node]}
                and not mine.is_inconsistent and not mine.is_outdated and theirs.members != {NODE_INDEX[other(node)]})

    def administer(self):
        """Gives the role to somebody when nobody has it; a node whose role cannot be seen may have it."""
        if any(self.pair.is_running(node) and self.status(node) is None for node in ADDRESSES) or self.primary() is not None:
            return
        nodes = list(ADDRESSES)
        self.random.shuffle(nodes)
        for node in nodes:
            if self.may_promote(node):
                if not self.pair.is_running(other(node)):
                    return  # It takes over by itself.
                code, text = self.pair.try_ctl(node, "primary")
                if code == 0:
                    self.promotions += 1
                    self.say(f"  {text}")
                return

    # -- the faults

    def start(self, node):
        self.pair.start(node)

    def kill(self, node):
        self.pair.take_down(node)
        self.paused.discard(node)

    def kill_primary(self):
        """Often paused first: its kernel still holds what it had sent. Sometimes it comes back before anybody took over."""
        node = self.primary()
        if node is None:
            return
        # Without an arbiter a node that was not connected since it started takes nothing over.
        was_healthy = self.is_healthy()
        if self.random.random() < 0.4:
            self.stop_running(node, self.random.uniform(0, 2.5))
        self.kill(node)
        if self.random.random() < 0.7:
            died_at = time.monotonic()
            while was_healthy and self.may_promote(other(node)) and self.primary() is None:
                if time.monotonic() > died_at + TAKEOVER_MAX_S:
                    raise TestFailure(f"I9: {other(node)} has a whole copy and does not take over within {TAKEOVER_MAX_S} s")
                self.wait(0.1)
            if self.primary() == other(node):
                self.takeovers += 1
                self.say(f"  {other(node)} has taken over after {time.monotonic() - died_at:.1f} s")
            self.wait(self.random.uniform(0, 2))
        else:
            time.sleep(self.random.uniform(0, 0.5))
        self.start(node)

    def kill_secondary(self):
        node = other(self.primary() or "a")
        if not self.pair.is_running(node):
            return
        self.kill(node)
        self.wait(self.random.uniform(0, 2))
        self.start(node)

    def kill_both(self):
        nodes = list(ADDRESSES)
        self.random.shuffle(nodes)
        for node in nodes:
            self.kill(node)
            time.sleep(self.random.choice((0, 0.02, 0.3)))
        self.random.shuffle(nodes)
        for node in nodes:
            self.start(node)
            time.sleep(self.random.choice((0, 0, 1)))

    def stop_running(self, node, seconds):
        os.kill(self.pair.pid(node), signal.SIGSTOP)
        self.paused.add(node)
        self.wait(seconds)

    def pause(self):
        node = self.random.choice(list(ADDRESSES))
        self.stop_running(node, self.random.choice((0.05, 0.5, 1.2, 3, 5)))
        self.resume(node)

    def resume(self, node):
        os.kill(self.pair.pid(node), signal.SIGCONT)
        self.paused.discard(node)

    def drop(self, node, direction):
        """Nothing of the peer's passes this node's interface in that direction ("input" or "output")."""
        field = "saddr" if direction == "input" else "daddr"
        for words in (["add", "table", "ip", "soak"],
                      ["add", "chain", "ip", "soak", direction, f"{{ type filter hook {direction} priority 0; }}"],
                      ["add", "rule", "ip", "soak", direction, "ip", field, ADDRESSES[other(node)], "drop"]):
            self.lab.command(["nft", *words], self.namespaces[node])

    def heal_network(self):
        for node, namespace in self.namespaces.items():
            self.lab.command(["nft", "flush", "ruleset"], namespace)

    def cut(self, *directions):
        node = self.random.choice(list(ADDRESSES))
        for direction in directions:
            self.drop(node, direction)
        self.wait(self.random.choice((0.2, 1, 3, 6)))
        # The worst is a second fault: the isolated primary has gone on alone, and its peer does not know.
        if self.random.random() < 0.4:
            self.say("  kill primary, in the partition")
            self.kill_primary()
        self.heal_network()

    def partition(self):
        self.cut("input", "output")

    def one_way(self):
        self.cut("input")

    def restart(self):
        node = self.random.choice(list(ADDRESSES))
        if not self.pair.stop(node):
            raise TestFailure(f"{node} did not stop in order: {self.pair.how_ended(node)}")
        self.wait(self.random.uniform(0, 1.5))
        self.start(node)

    def switch_over(self):
        node = self.primary()
        if node is None or not self.is_healthy():
            return
        code, _ = self.pair.try_ctl(node, "secondary")
        if code == 0 and all(self.is_connected(one) for one in ADDRESSES):
            code, text = self.pair.try_ctl(other(node), "primary")
            self.switchovers += code == 0
            self.say(f"  {text}")

    def disconnect(self):
        node = self.random.choice(list(ADDRESSES))
        self.pair.try_ctl(node, "disconnect")
        self.wait(self.random.uniform(0, 2))
        self.pair.try_ctl(node, "connect")

    def reset(self):
        """The replication connection, by the kernel of one side."""
        self.lab.command(["ss", "-K", "dst", ADDRESSES["b"], "dport", "=", "7789"], self.namespaces["a"], check=False)
        self.lab.command(["ss", "-K", "dst", ADDRESSES["a"], "dport", "=", "7789"], self.namespaces["b"], check=False)

    def heal(self):
        self.heal_network()
        for node in ADDRESSES:
            if node in self.paused:
                self.resume(node)
            if not self.pair.is_running(node):
                self.start(node)
        self.connected_at = 0.0

        def is_whole():
            if time.monotonic() - self.connected_at > 5:  # A request that a hung daemon had not come to may have cut it since.
                self.connected_at = time.monotonic()
                for node in ADDRESSES:
                    self.pair.try_ctl(node, "connect")
            return self.is_healthy()
        self.until("all is healed and both are UpToDate", is_whole, HEAL_MAX_S)


class SoakPair(Pair):
    """Knows which daemons were taken down on purpose."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.started, self.taken_down = set(), set()

    def start(self, node):
        super().start(node)
        self.started.add(node)
        self.taken_down.discard(node)

    def take_down(self, node):
        self.taken_down.add(node)
        self.kill(node)
        self.wait_dead(node)
        time.sleep(0.1)  # What its kernel had begun to write lands before anybody reads the superblocks.

    def stop(self, node, timeout_s=20):
        self.taken_down.add(node)
        return super().stop(node, timeout_s)


def enter_own_mounts():
    """Named network namespaces are mounts: in a mount namespace of its own they are gone with this process, however it ends."""
    os.execvp("unshare", ["unshare", "--mount", sys.executable, "-B", *sys.argv, OWN_MOUNTS])


def soak(arguments):
    os.makedirs("/run/netns", exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "netns", "/run/netns"], check=True)
    lab = Lab()
    pair = run = None
    try:
        for node, address in ADDRESSES.items():
            lab.add_host(node, [f"{address}/24", f"{HEARTBEAT_ADDRESSES[node]}/24"])
        lab.ip(lab.lan, f"addr add {INITIATORS_ADDRESS} dev br0")
        enter_namespace(lab.lan)
        pair = SoakPair(arguments.bin, arguments.folder, DEVICE_BYTES, addresses=ADDRESSES, cluster_settings=CLUSTER_SETTINGS,
                        namespaces={node: f"{lab.tag}-{node}" for node in ADDRESSES}, death_signal="KILL")
        pair.create()
        for node in ADDRESSES:
            pair.start(node)
        run = Soak(lab, pair, arguments.seed, arguments.connections)
        run.run(arguments.seconds or arguments.minutes * 60)
        print(f"held: {run.summary()}")
        return 0
    except (Violation, TestFailure, DemoError, InitiatorError) as problem:
        print(f"\nFAILED: {problem}")
        for node in ADDRESSES if pair else ():
            print(f"--- {node}.log, its end\n{pair.log_tail(node, 40)}")
        print(f"\nseed {arguments.seed}; {run.summary() if run else ''}", flush=True)
        return 1
    finally:
        quiet()
        if pair:
            pair.close()
        lab.close()


def on_signal(number, _):
    if number == signal.SIGALRM:
        raise TestFailure("the run does not come to its end in time")
    raise KeyboardInterrupt


def quiet():
    """Cleaning up is bounded and not interrupted."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default=os.path.join(TREE, "build/release"), help="folder of replblkd and replblkctl")
    parser.add_argument("--folder", default=os.path.join(TREE, "build/soak"), help="where the nodes' files are made (and removed)")
    parser.add_argument("--minutes", type=float, default=10, help="of faults (10)")
    parser.add_argument("--seconds", type=float, default=0, help="instead of --minutes")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="which faults, in which order (from the clock)")
    parser.add_argument("--connections", type=int, default=3, help="initiators with a session each (3)")
    parser.add_argument(OWN_MOUNTS, action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("soak: network namespaces and nft need root", file=sys.stderr)
        return 2
    if not arguments.in_own_mounts:
        sys.argv += [] if "--seed" in " ".join(sys.argv) else ["--seed", str(arguments.seed)]
        enter_own_mounts()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, on_signal)
    print(f"seed {arguments.seed}: {arguments.seconds or arguments.minutes * 60:.0f} s of faults, {arguments.connections} connections", flush=True)
    signal.setitimer(signal.ITIMER_REAL, (arguments.seconds or arguments.minutes * 60) + 240)
    try:
        return soak(arguments)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
