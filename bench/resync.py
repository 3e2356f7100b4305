"""Speed of a resync against the slower of disk and link, and what it costs the initiators beside it.

A pair of ours on one backing; the second node's copy is made anew, so that every block is copied. Nothing here decides
whether a figure is good.
"""

import json
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time

import contenders as targets

POLL_S = 0.02


class ResyncPair(targets.ReplblkPair):
    """A pair whose second copy can be made anew."""

    name = "replblk-resync"

    def peer_device(self, node=0):
        status = self.status(self.nodes()[node])
        return status[0]["connections"][0]["peer_devices"][0]

    def stop_second(self):
        process = self.processes.pop("secondary")
        process.send_signal(self.stop_signal)
        process.wait(timeout=20)

    def start_second(self):
        node = self.nodes()[1]
        self.launch("secondary", [self.daemon, "--config", self.config, "--node", node], self.placement.load_cpu)

    def renew_second(self):
        """Everything is to be copied when this returns; resyncs are paused."""
        self.ctl(self.nodes()[0], "pause-sync", "bench")
        self.stop_second()
        # The kernel may hold the dead daemon's disk for a moment.
        targets.retry(lambda: self.ctl(self.nodes()[1], "create-md", "--force"), 10, "fresh metadata")
        self.start_second()

        def paused():
            state = self.peer_device()["replication-state"]
            if state != "PausedSyncS":
                raise targets.ContenderError(f"replication is {state}")

        targets.retry(paused, 20, "a paused resync")

    def resume(self):
        self.ctl(self.nodes()[0], "resume-sync", "bench")

    def pause(self):
        self.ctl(self.nodes()[0], "pause-sync", "bench")

    def is_syncing(self):
        return self.peer_device()["replication-state"] != "Established"

    def wait_end(self, limit_s):
        begin = time.monotonic()
        while self.is_syncing():
            self.check_alive()
            if time.monotonic() - begin > limit_s:
                raise targets.ContenderError(f"the resync did not end within {limit_s:.0f} s")
            time.sleep(POLL_S)
        return time.monotonic() - begin


def disk_bytes_per_second(directory, size_bytes, seconds):
    """What the backing gives when one file is read and another is written at once: (read, written). fio, 1 MiB, 16 in
    flight, direct where that is possible."""
    if shutil.which("fio") is None:
        raise targets.ContenderError("fio is missing: run tools/dev setup")
    paths = [os.path.join(directory, name) for name in ("probe.read", "probe.write")]
    direct = targets.accepts_direct_io(directory)
    try:
        for path in paths:
            targets.write_backing_file(path, size_bytes, keep_cached=not direct)
        common = ["--bs=1M", "--iodepth=16", f"--size={size_bytes}", f"--runtime={seconds}", "--time_based",
                  "--ioengine=io_uring", f"--direct={1 if direct else 0}", "--end_fsync=1"]
        output = targets.run_command(
            ["fio", "--output-format=json", "--name=read", "--rw=read", f"--filename={paths[0]}", *common,
             "--name=write", "--rw=write", f"--filename={paths[1]}", *common], timeout=seconds + 60)
        jobs = json.loads(output)["jobs"]
        return jobs[0]["read"]["bw_bytes"], jobs[1]["write"]["bw_bytes"]
    finally:
        for path in paths:
            if os.path.exists(path):
                os.unlink(path)


def link_bytes_per_second(seconds):
    """One TCP connection over loopback, a process on each side."""
    program = (
        "import socket,sys\n"
        "s=socket.create_connection(('127.0.0.1',int(sys.argv[1])))\n"
        "b=bytearray(1<<20)\n"
        "try:\n"
        "  while True: s.sendall(b)\n"
        "except OSError: pass\n"
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        sender = subprocess.Popen(["python3", "-c", program, str(listener.getsockname()[1])])
        try:
            connection, _ = listener.accept()
            with connection:
                buffer = bytearray(1 << 20)
                count = 0
                begin = time.monotonic()
                while time.monotonic() - begin < seconds:
                    count += connection.recv_into(buffer)
                return count / (time.monotonic() - begin)
        finally:
            sender.kill()
            sender.wait()


def load(arguments, placement, generator, pair, size_bytes, seconds, seed):
    command = [generator, "--portal", pair.portal, "--target", targets.IQN, "--lun", "0", "--workload", "randwrite",
               "--block-size", "4096", "--queue-depth", "8", "--region", str(size_bytes), "--seed", str(seed),
               "--warm-up", str(arguments.resync_warm_up), "--seconds", str(seconds)]
    process = placement.spawn(command, placement.load_cpu, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    output, errors = process.communicate(timeout=seconds + arguments.resync_warm_up + 60)
    pair.check_alive()
    if process.returncode != 0:
        raise targets.ContenderError(f"load: {errors.strip()}")
    return json.loads(output)


def measure_idle(arguments, pair, size_bytes):
    speeds = []
    for _ in range(arguments.rounds):
        pair.renew_second()
        begin = time.monotonic()
        pair.resume()
        pair.wait_end(300)
        speeds.append(size_bytes / (time.monotonic() - begin))
    return statistics.median(speeds), min(speeds), max(speeds)


def measure_beside(arguments, placement, generator, pair, size_bytes, p99_of):
    """Pairs of windows, without and with the resync copying, in one resync; then the load goes on until it ends."""
    pair.renew_second()
    alone, beside, copied = [], [], []
    for number in range(arguments.rounds):
        alone.append(load(arguments, placement, generator, pair, size_bytes, arguments.seconds, 2 * number + 1))
        before = pair.peer_device()["out-of-sync"]
        result = {}
        # The generator first: its first request makes the resync give way, rather than find the disk full of it.
        thread = threading.Thread(target=lambda: result.update(
            load(arguments, placement, generator, pair, size_bytes, arguments.seconds, 2 * number + 2)))
        begin = time.monotonic()
        thread.start()
        time.sleep(min(0.3, arguments.resync_warm_up / 2))
        pair.resume()
        thread.join()
        pair.pause()
        elapsed = time.monotonic() - begin
        if not result:
            raise targets.ContenderError("the load beside the resync failed")
        if not pair.is_syncing():
            raise targets.ContenderError("the resync ended within the measured windows: use a larger --size-mib")
        beside.append(result)
        copied.append((before - pair.peer_device()["out-of-sync"]) * 1024 / elapsed)
    pair.resume()
    stop = threading.Event()

    def go_on():
        seed = 1000
        while not stop.is_set():
            load(arguments, placement, generator, pair, size_bytes, 2.0, seed)
            seed += 1

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        end_s = pair.wait_end(600)
    finally:
        stop.set()
        thread.join()
    ratios = [p99_of(two) / p99_of(one) for one, two in zip(alone, beside)]
    return alone, beside, copied, ratios, end_s


def mib(value):
    return f"{value / (1 << 20):.0f}"


def run(arguments, placement, generator, binaries, find_backing, log_directory):
    size_bytes = arguments.size_mib << 20

    def p99_of(result):
        return result["p99_us"]

    for kind in arguments.backings.split(","):
        base = find_backing(kind, arguments)
        if base is None:
            print(f"\n== no writable {kind} here: skipped")
            continue
        directory = tempfile.mkdtemp(prefix=f"replblk-bench-{kind}-", dir=base)
        pair = ResyncPair(binaries, placement, directory, log_directory)
        try:
            read, written = disk_bytes_per_second(directory, size_bytes, 3)
            # Both copies are on one device here, and a resync reads as much as it writes.
            disk = (read + written) / 2
            link = link_bytes_per_second(2)
            pair.prepare(size_bytes)
            # The usable size is a little larger than what is asked for: prepare() leaves room for metadata.
            pair.start()
            total = pair.status(pair.nodes()[0])[0]["devices"][0]["size"] * 1024
            median, low, high = measure_idle(arguments, pair, total)
            print(f"\n== resync on {kind}, {total >> 20} MiB, no other load")
            print(f"disk {mib(read)} MiB/s read and {mib(written)} MiB/s written at once, mean {mib(disk)}; loopback "
                  f"{mib(link)} MiB/s; resync {mib(median)} MiB/s ({mib(low)}..{mib(high)}), "
                  f"{median / min(disk, link):.2f} of the slower", flush=True)
            alone, beside, copied, ratios, end_s = measure_beside(
                arguments, placement, generator, pair, size_bytes, p99_of)
            print(f"== beside 4k random writes, QD 8, on {kind}")
            for number, (one, two) in enumerate(zip(alone, beside)):
                print(f"round {number + 1}: p99 {p99_of(one):.0f} us alone, {p99_of(two):.0f} us beside, ratio "
                      f"{ratios[number]:.2f}; {one['iops']:.0f} and {two['iops']:.0f} IOPS; copied {mib(copied[number])} "
                      f"MiB/s")
            print(f"median ratio of p99 {statistics.median(ratios):.2f}; the resync ended after {end_s:.0f} s more of load",
                  flush=True)
        finally:
            pair.stop()
            pair.remove_files()
            shutil.rmtree(directory, ignore_errors=True)
