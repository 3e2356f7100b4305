#!/usr/bin/env python3
"""Virtual IPs of real daemons, IPv4 and IPv6 in one resource, on a device of their own in network namespaces.

Both move with the role, by plan and when the node that has them is killed, and are on one node only. When the device of the Primary goes
down, while the nodes and their disks are well, the role goes where the addresses can be held; where neither device is up it stays. An
initiator that knows one of the addresses only gets an answer each time. Needs root.
"""

import argparse
import json
import os
import sys
import time

sys.dont_write_bytecode = True

from cluster import TREE, Writer, parse_in_own_mounts, run_in_lab  # noqa: E402
from demonstration.pair import other, wait_until  # noqa: E402
from lab import TestFailure  # noqa: E402

ADDRESSES = {"10.80.0.50": 24, "fd79::50": 64}
INITIATOR_ADDRESSES = ("10.80.0.100/24", "fd79::100/64")
DEVICE = "eth1"
# What a busy machine may add; the figures are for people.
MOVE_MAX_S = 6
# The kernel's grain on top of the lifetime, and a busy machine.
EXPIRY_MAX_S = 4


class Addresses:
    def __init__(self, cluster):
        self.cluster, self.lab, self.pair = cluster, cluster.lab, cluster.pair
        self.started = time.monotonic()

    def say(self, sentence):
        print(f"[{time.monotonic() - self.started:5.1f} s] {sentence}", flush=True)

    def on(self, node):
        """Which of them the node's kernel has."""
        shown = json.loads(self.lab.ip(f"{self.lab.tag}-{node}", f"-json addr show dev {DEVICE}").stdout)
        found = {each["local"] for device in shown for each in device.get("addr_info", [])}
        return found & set(ADDRESSES)

    def states(self, node):
        return [ip["state"] for ip in self.pair.status(node)["virtual-ips"]]

    def expect_moved(self, to, limit_s=MOVE_MAX_S):
        wait_until(f"all addresses are on {to}", lambda: self.on(to) == set(ADDRESSES) and self.states(to) == ["held", "held"], limit_s)
        wait_until(f"no address is on {other(to)}", lambda: not self.on(other(to)), EXPIRY_MAX_S)

    def set_device(self, node, state):
        self.lab.ip(f"{self.lab.tag}-{node}", f"link set {DEVICE} {state}")

    def tell(self):
        self.pair.ctl("a", "primary", "--force")
        wait_until("the first synchronisation", self.cluster.is_healthy, 60)
        self.expect_moved("a")
        writers = [Writer([address]) for address in ADDRESSES]
        for number, writer in enumerate(writers):
            writer.start()
            wait_until("writes are answered by way of each address", lambda to=writer: to.count > 50 or to.problem, 20)
            self.story(writer, list(ADDRESSES)[number])
            writer.finish()
        self.device_goes_down()
        self.cluster.check(writers[-1])

    def story(self, writer, address):
        for name, action in (("switched over", lambda node: self.pair.ctl(node, "switchover")), ("killed", self.pair.kill)):
            primary = self.cluster.primary()
            pause = writer.measure(f"{primary} is {name}", lambda at=primary, act=action: act(at), MOVE_MAX_S)
            self.expect_moved(other(primary))
            if not self.pair.is_running(primary):
                self.pair.start(primary)
            wait_until("both are UpToDate", self.cluster.is_healthy, 60)
            self.say(f"{primary} was {name}: both addresses went to {other(primary)}; {pause * 1000:.0f} ms without an answer by way of {address}")

    def device_goes_down(self):
        primary = self.cluster.primary()
        waiting = other(primary)
        self.set_device(primary, "down")
        began = time.monotonic()
        wait_until(f"{waiting} serves", lambda: self.cluster.primary() == waiting, 10)
        self.say(f"{DEVICE} of {primary} went down: the role was at {waiting} after {time.monotonic() - began:.1f} s")
        wait_until(f"all addresses are on {waiting}", lambda: self.on(waiting) == set(ADDRESSES), MOVE_MAX_S)
        if not self.cluster.is_healthy():
            raise TestFailure("the nodes are not connected any more")
        wait_until(f"{primary} says what is wrong with its device", lambda: "the device is down" in self.pair.try_ctl(primary, "status")[1], 5)
        code, text = self.pair.try_ctl(waiting, "switchover")
        if code == 0 or "cannot hold the virtual IP" not in text:
            raise TestFailure(f"a switchover to {primary}, whose device is down: exit {code}, {text}")
        self.set_device(waiting, "down")
        time.sleep(5)
        if self.cluster.primary() != waiting or self.states(waiting) != ["failed", "failed"]:
            raise TestFailure(f"neither device is up: {self.cluster.primary()} serves, the addresses of {waiting} are {self.states(waiting)}")
        for node in "ab":
            self.set_device(node, "up")
        self.expect_moved(waiting)
        self.say(f"with both devices down the role stayed at {waiting}, which got the addresses again with its device")


def give_devices(lab, text):
    for node in "ab":
        namespace = f"{lab.tag}-{node}"
        lab.ip(lab.lan, f"link add to-{node}-1 type veth peer name {DEVICE} netns {namespace}")
        lab.ip(lab.lan, f"link set to-{node}-1 master br0 up")
        lab.ip(namespace, f"link set {DEVICE} up")
    for address in INITIATOR_ADDRESSES:
        lab.ip(lab.lan, f"addr add {address} dev br0{' nodad' if ':' in address else ''}")
    ips = " ".join(f'virtual_ip {{ address: "{address}/{bits}" device: "{DEVICE}" }}' for address, bits in ADDRESSES.items())
    portals = " ".join(f'portal {{ address: "{address}" }}' for address in ADDRESSES)
    return text.replace("resource {", f"resource {{ {ips}", 1).replace("target {", f"target {{ {portals}", 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=os.path.join(TREE, "build/release"), help="the folder with replblkd and replblkctl")
    parser.add_argument("--folder", default=os.path.join(TREE, "build/failover"), help="where to work")
    options = parse_in_own_mounts(parser)
    return run_in_lab(options.bin, options.folder, lambda cluster: Addresses(cluster).tell(), edit=give_devices)


if __name__ == "__main__":
    sys.exit(main())
