"""A replblk pair as the target: one daemon in each namespace, a file as each one's disk.

The address that the initiator talks to is the pair's virtual IP: it moves with the role.
Invariant: start() returns only when both disks are UpToDate, so whatever is acknowledged afterwards is on both.
"""

import os
import re

from lab import wait_until

CONFIG = """\
cluster {{
  name: "store1"
  node {{ name: "a" address: "{addresses[a]}" admin_socket: "{folder}/a.sock" }}
  node {{ name: "b" address: "{addresses[b]}" admin_socket: "{folder}/b.sock" }}
  secret_file: "{folder}/secret"
}}
resource {{
  name: "store"
  virtual_ip {{ address: "{portal}/24" device: "eth0" }}
  target {{ iqn: "{iqn}" }}
  volume {{ lun: 0  disk {{ on: "a" path: "{folder}/disk-a" }}  disk {{ on: "b" path: "{folder}/disk-b" }} }}
}}
"""

VOLUME_BYTES = 256 << 20


class ReplblkPair:
    iqn = "iqn.2026-11.org.example:store1"
    moves_address = True

    def __init__(self, lab, namespaces, addresses, portal, replblkd, replblkctl):
        self._lab = lab
        self._namespaces = namespaces
        self._replblkd = os.path.abspath(replblkd)
        self._replblkctl = os.path.abspath(replblkctl)
        self._processes = {}
        self._config = lab.path("node.conf")
        with open(lab.path("secret"), "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write("a secret of this test run only\n")
        for node in namespaces:
            with open(lab.path(f"disk-{node}"), "wb") as file:
                file.truncate(VOLUME_BYTES)
        with open(self._config, "w") as file:
            file.write(CONFIG.format(addresses=addresses, iqn=self.iqn, portal=portal, folder=lab.folder))

    def start(self):
        for node, namespace in self._namespaces.items():
            self._ctl(node, "create-md")
            self._processes[node] = self._lab.start(
                f"replblkd-{node}", [self._replblkd, "--config", self._config, "--node", node], namespace)
        for node in self._namespaces:
            wait_until(f"replblkd {node} answers", lambda: self._ctl(node, "status", check=False).returncode == 0, 15)
        self._ctl("a", "primary", "--force")
        for node in self._namespaces:
            wait_until(f"both disks UpToDate, seen from {node}", lambda: self._in_sync(node), 60)

    def switch_over(self, node):
        self._ctl(node, "switchover")

    def kill_primary(self):
        self._processes["a"].kill()
        self._processes["a"].wait()

    def promote_survivor(self):
        """It takes over by itself."""
        wait_until("the survivor takes the primary role",
                   lambda: re.search("^store role:Primary", self._ctl("b", "status", check=False).stdout, re.M), 20)

    def describe(self):
        return "\n".join(f"{node}: {self._ctl(node, 'status', check=False).stdout.strip()}" for node in self._namespaces)

    def _in_sync(self, node):
        status = self._ctl(node, "status", check=False).stdout
        return bool(re.search(r"^  (volume:0 )?disk:UpToDate", status, re.M)
                    and re.search(r"^    .*peer-disk:UpToDate", status, re.M))

    def _ctl(self, node, *words, check=True):
        return self._lab.command([self._replblkctl, "--config", self._config, "--node", node, *words],
                                 self._namespaces[node], check=check)
