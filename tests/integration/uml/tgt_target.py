"""Debian's tgt in the place of a replblk pair: the self-check of this rig (`--target tgt`).

Two tgtd serve ONE file, one in each namespace, so every write is "mirrored" perfectly; if the test fails against it,
the rig or the machine is at fault, not replblkd. With `--target tgt-unmirrored` each has a file of its own: the test
must then fail, which shows that it can.
"""

import os

from lab import wait_until


class TgtPair:
    iqn = "iqn.2026-11.org.example:store1"
    moves_address = False

    def __init__(self, lab, namespaces, mirrored):
        self._lab = lab
        self._namespaces = namespaces
        self._mirrored = mirrored
        self._processes = {}

    def start(self):
        self._start_node("a", 0)
        self._start_node("b", 1)

    def kill_primary(self):
        self._processes["a"].kill()
        self._processes["a"].wait()

    def promote_survivor(self):
        pass

    def describe(self):
        return "tgt has no state to show"

    def _start_node(self, node, index):
        disk = self._lab.path("disk" if self._mirrored else f"disk-{node}")
        with open(disk, "ab") as file:
            file.truncate(256 << 20)
        env = dict(os.environ, TGT_IPC_SOCKET=self._lab.path(f"tgt-{node}"))
        namespace = self._namespaces[node]
        self._processes[node] = self._lab.start(f"tgtd-{node}", ["tgtd", "-f", "-C", str(index)], namespace, env=env)

        def tgtadm(words, check=True):
            argv = ["env", f"TGT_IPC_SOCKET={env['TGT_IPC_SOCKET']}", "tgtadm", "-C", str(index), "--lld", "iscsi"]
            return self._lab.command(argv + words.split(), namespace, check=check).returncode == 0

        wait_until(f"tgtd {node} answers", lambda: tgtadm("--op show --mode target", check=False), 10)
        tgtadm(f"--op new --mode target --tid 1 -T {self.iqn}")
        for digest in ("HeaderDigest", "DataDigest"):
            tgtadm(f"--op update --mode target --tid 1 --name {digest} --value None,CRC32C")
        tgtadm(f"--op new --mode logicalunit --tid 1 --lun 1 -b {disk}")
        tgtadm("--op bind --mode target --tid 1 -I ALL")
