"""The demo that stays up: what a person sees and may try, until Ctrl-C.

Not responsible for the daemons (pair.py). On a terminal the state is refreshed in place and single keys act;
elsewhere a line is printed whenever the state has changed, and signals act.
"""

import os
import select
import shlex
import signal
import sys
import termios
import time
import tty

from demonstration.pair import ADDRESSES, DemoError, device_of, is_in_sync, other, peer_of

REFRESH_S = 0.5


class Quit(Exception):
    """The person has seen enough."""


def mib(kib):
    return f"{kib / 1024:.1f} MiB"


def short(path):
    """As this shell would spell it."""
    relative = os.path.relpath(path)
    return path if relative.startswith("../..") else relative


class Live:
    def __init__(self, pair, is_terminal):
        self._pair = pair
        self._is_terminal = is_terminal
        self._statuses = {}
        self._is_mine = {}  # it runs, and the demo has started it
        self._lines_up = 0
        self._last_said = None
        self._known_dead = set()
        self._restart_wanted = False

    def run(self):
        previous = self._prepare_terminal()
        try:
            self._bring_up()
            self._introduce()
            while True:
                self._look()
                self._notice_deaths()
                self._show(self._state_lines() + [""] + self._advice())
                self._wait_for_key()
        finally:
            if previous:
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, previous)

    # -- coming up

    def _bring_up(self):
        pair = self._pair
        pair.create()
        for node in ADDRESSES:
            pair.start(node)
        pair.ctl("a", "primary", "--force")
        print(f"Two nodes run; the first sync copies {pair.volume_bytes >> 20} MiB from a to b.", flush=True)
        begin = time.monotonic()
        while True:
            self._look()
            dead = [node for node in ADDRESSES if not pair.is_running(node)]
            if dead:
                raise DemoError(f"replblkd of node {dead[0]} died in the first sync ({pair.how_ended(dead[0])}):\n{pair.log_tail(dead[0], 5)}")
            if all(is_in_sync(self._statuses[node]) for node in ADDRESSES):
                break
            if time.monotonic() - begin > 600:
                raise DemoError("the first sync did not end within 10 minutes; see the logs in " + pair.folder)
            self._show(self._state_lines())
            time.sleep(0.2)
        self._show(self._state_lines())
        self._lines_up = 0
        print(f"In sync after {time.monotonic() - begin:.1f} s.", flush=True)

    def _introduce(self):
        pair = self._pair
        status = pair.status("a")
        size = device_of(status)["size"] * 1024 if status else pair.volume_bytes
        alone = pair.url("a", None)
        portal = alone.removeprefix("iscsi://")
        iqn = status["target"]["iqn"] if status else ""
        print(f"""
A disk of {size} bytes, the same behind both addresses; the node that is Primary serves it:
  node a  {pair.url("a")}
  node b  {pair.url("b")}
Use it:
  iscsi-ls -s {alone}
  qemu-img info {pair.url("a")}
  qemu-img convert -n -O raw SOME.img {pair.url("a")}
  qemu-io -f raw -c 'write -P 0x5a 0 1M' {pair.url("a")}
  iscsiadm -m discovery -t sendtargets -p {portal} && iscsiadm -m node -T {iqn} -p {portal} --login     (root, kernel with iscsi_tcp)
Ask it:
  {self._ctl("a", "status")}
Its files and logs: {short(pair.folder)}/  ({", ".join(f"{node}.log" for node in ADDRESSES)})
""", flush=True)

    def _ctl(self, node, *words):
        binary, _, config, *rest = self._pair.ctl_words(node, *words)
        return shlex.join([short(binary), "--config", short(config), *rest])

    # -- the state

    def _look(self):
        """One picture of both: a daemon that died while it was asked is dead, whatever it has answered."""
        for node in ADDRESSES:
            was_running = self._pair.is_running(node)
            status = self._pair.status(node)
            self._is_mine[node] = self._pair.is_running(node)
            self._statuses[node] = None if was_running and not self._is_mine[node] else status

    def _state_lines(self):
        return [self._state_line(node) for node in ADDRESSES]

    def _state_line(self, node):
        status = self._statuses[node]
        if status is None:
            if self._is_mine[node]:
                return f"  {node}  pid {self._pair.pid(node)}  does not answer"
            return f"  {node}  DEAD ({self._pair.how_ended(node)})"
        device = device_of(status)
        who = f"pid {self._pair.pid(node)}" if self._is_mine[node] else "not mine"
        words = [f"  {node}  {who:<11} {status['role']:<9}  disk {device['disk-state']:<12}", self._peer_words(status)]
        if status["sessions"]:
            words.append(f"{len(status['sessions'])} iSCSI session{'s' if len(status['sessions']) > 1 else ''}")
        words.append(f"written {mib(device['written'])}, read {mib(device['read'])}")
        return "  ".join(word for word in words if word)

    def _peer_words(self, status):
        if not status["connections"]:
            return ""
        peer = peer_of(status)
        if peer["connection-state"] != "Connected":
            text = f"peer {peer['connection-state']}"
            if peer["peer_devices"] and peer["peer_devices"][0]["out-of-sync"]:
                text += f", {mib(peer['peer_devices'][0]['out-of-sync'])} to copy when it is back"
            return text
        device = peer["peer_devices"][0]
        text = f"peer {peer['peer-role']}/{device['peer-disk-state']}"
        if device["replication-state"] not in ("Established", "Off"):
            text += f", {device['replication-state']} {device['percent-in-sync']} %"
            if "estimated-seconds-to-finish" in device:
                text += f", {device['estimated-seconds-to-finish']} s left"
        return text

    def _advice(self):
        dead = [node for node in ADDRESSES if self._statuses[node] is None and not self._is_mine[node]]
        primary = next((node for node in ADDRESSES if self._statuses[node] and self._statuses[node]["role"] == "Primary"), None)
        restart = "press r here" if self._is_terminal else f"kill -USR1 {os.getpid()}"
        if len(dead) == 2:
            return [f"  Both daemons are gone. To start them again: {restart}."]
        if dead and primary is None:
            survivor = other(dead[0])
            return [f"  Node {dead[0]} is gone and nobody serves. Promote the other{' (or press p)' if self._is_terminal else ''}:",
                    f"    {self._ctl(survivor, 'primary')}",
                    f"  Then {self._pair.url(survivor)} has every write that was acknowledged."]
        if dead:
            return [f"  Node {dead[0]} is gone; {primary} serves alone at {self._pair.url(primary)} and notes what it writes.",
                    f"  To start {dead[0]} again and see it brought up to date: {restart}."]
        if primary is None:
            nodes = [node for node in ADDRESSES if self._statuses[node]]
            return [f"  Nobody serves. Promote one: {self._ctl(nodes[0] if nodes else 'a', 'primary')}"]
        if not is_in_sync(self._statuses[primary]):
            return ["  The copies are not equal yet: wait for the resync."]
        if not self._is_mine[primary]:
            return [f"  Node {primary} was started by somebody else, who has to end it, too."]
        return [f"  Now write something to it and kill the primary{' (or press k)' if self._is_terminal else ''}:",
                f"    kill -9 {self._pair.pid(primary)}",
                "  Ctrl-C ends the demo and removes everything."]

    # -- the screen and the keyboard

    def _show(self, lines):
        if not self._is_terminal:
            # Counters and percents run; what is news is the rest.
            news = [line.split("  written ")[0] for line in lines]
            if news != self._last_said:
                self._last_said = news
                print("\n".join(f"{time.strftime('%H:%M:%S')} {line}" for line in lines if line), flush=True)
            return
        width = os.get_terminal_size(sys.stdout.fileno()).columns or 80
        if self._lines_up:
            sys.stdout.write(f"\x1b[{self._lines_up}F\x1b[J")
        # A line that wraps is more than one to go up.
        self._lines_up = sum(max(1, -(-len(line) // width)) for line in lines)
        sys.stdout.write("".join(line + "\n" for line in lines))
        sys.stdout.flush()

    def _say(self, text):
        """A line that stays, above the refreshed ones."""
        if self._is_terminal and self._lines_up:
            sys.stdout.write(f"\x1b[{self._lines_up}F\x1b[J")
            self._lines_up = 0
        print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)
        self._last_said = None

    def _prepare_terminal(self):
        signal.signal(signal.SIGUSR1, self._on_restart_signal)
        if not (self._is_terminal and sys.stdin.isatty()):
            return None
        previous = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        return previous

    def _on_restart_signal(self, *_):
        self._restart_wanted = True

    def _wait_for_key(self):
        key = ""
        if self._is_terminal and sys.stdin.isatty():
            if select.select([sys.stdin], [], [], REFRESH_S)[0]:
                key = os.read(sys.stdin.fileno(), 1).decode("ascii", "replace")
        else:
            time.sleep(REFRESH_S)
        if key == "q":
            raise Quit
        if key == "k":
            self._kill_primary()
        elif key == "p":
            self._promote()
        elif key == "r" or self._restart_wanted:
            self._restart_wanted = False
            self._restart()

    def _notice_deaths(self):
        for node in ADDRESSES:
            if self._is_mine[node]:
                self._known_dead.discard(node)
            elif node not in self._known_dead:
                self._known_dead.add(node)
                self._say(f"node {node} died: {self._pair.how_ended(node)}")

    def _kill_primary(self):
        for node in ADDRESSES:
            if self._statuses[node] and self._statuses[node]["role"] == "Primary" and self._pair.is_running(node):
                self._say(f"kill -9 {self._pair.pid(node)}")
                self._pair.kill(node)
                self._pair.wait_dead(node)
                return

    def _promote(self):
        for node in ADDRESSES:
            if self._statuses[node] and self._statuses[node]["role"] == "Secondary":
                code, text = self._pair.try_ctl(node, "primary")
                self._say(f"{self._ctl(node, 'primary')}: {text or f'exit {code}'}")
                return

    def _restart(self):
        for node in ADDRESSES:
            if not self._pair.is_running(node) and self._statuses[node] is None:
                try:
                    self._pair.start(node)
                    self._known_dead.discard(node)
                    self._say(f"node {node} started again, pid {self._pair.pid(node)}")
                except DemoError as problem:
                    self._known_dead.add(node)
                    self._say(str(problem))
