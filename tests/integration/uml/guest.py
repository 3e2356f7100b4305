"""A User Mode Linux kernel as a child process: the initiator that nobody here wrote.

Not responsible for what runs inside (initiator_test.py says that) nor for the network (lab.py).
Invariant: one script at a time; run() returns only with the script's own exit status, or fails within its time.
"""

import os
import select
import shutil
import time

from lab import TestFailure


class NoGuestHere(Exception):
    """This host's processor has more register state than the guest's kernel knows: it cannot run a single program."""


_HERE = os.path.dirname(os.path.abspath(__file__))


class Guest:
    def __init__(self, lab, address, memory="256M"):
        self._lab = lab
        self._count = 0
        self._pending = b""
        self.share = lab.path("share")
        os.mkdir(self.share)
        self._address = address
        self._memory = memory

    def boot(self, timeout_s):
        self._lab.add_tap("tap0")
        guest_reads, self._to_guest = os.pipe()
        self._from_guest, guest_writes = os.pipe()
        uml_folder = self._lab.path("uml")
        os.mkdir(uml_folder)
        self._process = self._lab.start(
            "guest",
            # A process namespace of its own: the kernel's helper processes end with it.
            ["unshare", "--pid", "--fork", "--kill-child", "linux.uml",
             f"mem={self._memory}", f"umid={self._lab.tag}", f"uml_dir={uml_folder}",
             "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "noreboot", "panic=-1",
             f"init={shutil.which('bash')}", f"rig_share={self.share}", f"rig_address={self._address}",
             "vec0:transport=tap,ifname=tap0,depth=128,gro=1", "con=null", "con0=null,fd:1",
             f"ssl0=fd:{guest_reads},fd:{guest_writes}", "--", os.path.join(_HERE, "guest_init.sh")],
            self._lab.lan, pass_fds=(guest_reads, guest_writes))
        os.close(guest_reads)
        os.close(guest_writes)
        deadline = time.monotonic() + timeout_s
        while not select.select([self._from_guest], [], [], 0.5)[0] and time.monotonic() < deadline:
            self._refuse_foreign_processor()
        self._expect("ready", "the guest's init", max(1, deadline - time.monotonic()))

    def _refuse_foreign_processor(self):
        """Linux 6.1 for User Mode Linux hands its host a buffer for the registers that is too small for those of AMX, and panics
        when it starts its first program."""
        log = self._lab.log_tail("guest", 200)
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            has_amx = "amx_tile" in file.read()
        if has_amx and "put_fp_registers" in log and "fatal_sigsegv" in log and "new_thread_handler" in log:
            raise NoGuestHere("the processor has AMX: User Mode Linux cannot start a program on it")

    def write_file(self, name, text):
        """A file for the guest, at /run/share/<name>."""
        with open(os.path.join(self.share, name), "w") as file:
            file.write(text)

    def read_file(self, name):
        try:
            with open(os.path.join(self.share, name)) as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def run(self, script, timeout_s=30, check=True):
        """Runs a bash script inside and returns (exit status, what it printed)."""
        self._count += 1
        self.write_file(f"{self._count}.sh", script)
        os.write(self._to_guest, f"{self._count}\n".encode())
        status = int(self._expect(f"{self._count} ", script.strip(), timeout_s))
        output = self.read_file(f"{self._count}.out")
        if check and status != 0:
            raise TestFailure(f"in the guest: exit {status} of\n{script.strip()}\n{output}")
        return status, output

    def _expect(self, beginning, what, timeout_s):
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._pending:
            left_s = deadline - time.monotonic()
            readable, _, _ = select.select([self._from_guest], [], [], max(left_s, 0))
            if not readable:
                printed = self.read_file(f"{self._count}.out")
                raise TestFailure(f"the guest did not finish within {timeout_s} s: {what}\n{printed}")
            chunk = os.read(self._from_guest, 4096)
            if not chunk:
                raise TestFailure(f"the guest ended (exit {self._process.wait()}) during: {what}")
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        text = line.decode(errors="replace").strip()
        if not text.startswith(beginning.strip()):
            raise TestFailure(f"the guest answered {text!r} to {beginning!r}")
        return text[len(beginning):]
