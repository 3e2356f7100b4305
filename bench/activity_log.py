"""What the activity log costs: 4k random writes over a sparse volume so large that nearly every write needs an extent
that is not active, with `updates: true` and `updates: false`, in a pair and on its only member, interleaved."""

import json
import os
import shutil
import subprocess
import sys
import tempfile

import contenders as targets
import report

METADATA_BYTES = 256 << 20  # more than a volume of 4 TiB has


class LoggedPair(targets.ReplblkPair):
    """Both copies, in sync from the start: a first synchronisation of so many blocks would fill the file system."""

    is_alone = False

    def __init__(self, updates, is_external, *arguments):
        super().__init__(*arguments)
        self.updates, self.is_external = updates, is_external
        self.name = f"{'alone' if self.is_alone else 'pair'}-{'log' if updates else 'nolog'}"

    def write_config(self, disks, io_mode):
        super().write_config(disks, io_mode)
        with open(self.config) as file:
            text = file.read()
        log = f"activity_log {{ updates: {'true' if self.updates else 'false'} }}"
        with open(self.config, "w") as file:
            text = text.replace("resource {\n", f"resource {{\n  {log}\n")
            for disk in disks if self.is_external else ():
                text = text.replace(f'path: "{disk}"', f'path: "{disk}" metadata_path: "{disk}.meta"')
            file.write(text)

    def prepare(self, size_bytes, sparse=True):
        direct = targets.accepts_direct_io(self.directory)
        disks = [self.make_file(f"{node}.disk", size_bytes + METADATA_BYTES, True, keep_cached=not direct)
                 for node in self.nodes()]
        if self.is_external:
            for node in self.nodes():
                self.make_file(f"{node}.disk.meta", METADATA_BYTES, False, keep_cached=not direct)
        self.config = os.path.join(self.log_directory, f"{self.name}.conf")
        self.write_config(disks, "direct" if direct else "buffered")
        first, second = self.nodes()
        self.ctl(first, "create-md", "--force")
        # The first node alone, its data declared whole, stopped cleanly as secondary: a copy of its file is a peer that has
        # missed nothing. (As primary it would begin a new generation when it starts again.)
        self.launch("target", [self.daemon, "--config", self.config, "--node", first], self.placement.target_cpu)
        targets.retry(self.promote, 10, "promotion")
        self.ctl(first, "secondary", "bench")
        self.stop()
        if not self.is_alone:
            targets.run_command(["cp", "--sparse=always", disks[0], disks[1]], timeout=120)
            if self.is_external:
                targets.run_command(["cp", disks[0] + ".meta", disks[1] + ".meta"], timeout=120)

    def start_daemons(self):
        for number, node in enumerate(self.nodes()[:1] if self.is_alone else self.nodes()):
            label = "target" if number == 0 else "secondary"
            cpu = self.placement.target_cpu if number == 0 else self.placement.load_cpu
            self.launch(label, [self.daemon, "--config", self.config, "--node", node], cpu)
        self.portal = f"{self.addresses[0]}:{self.iscsi_port}"

    def start(self):
        self.start_daemons()
        self.wait_in_sync()
        targets.retry(self.promote, 10, "promotion")

    def wait_in_sync(self):
        def in_sync():
            self.check_alive()
            peer = self.status(self.nodes()[0])[0]["connections"][0]["peer_devices"][0]
            if peer["out-of-sync"] > 1 << 20:
                raise RuntimeError(f"{self.name}: {peer['out-of-sync']} KiB to synchronise: it would fill the disk")
            if peer["peer-disk-state"] != "UpToDate":
                raise targets.ContenderError(f"peer disk is {peer['peer-disk-state']}")

        targets.retry(in_sync, 60, "first synchronisation")

    def device(self):
        return self.status(self.nodes()[0])[0]["devices"][0]


class LoggedAlone(LoggedPair):
    """The only member of a pair whose other node is away: each write sets a bit, and bits go to disk too."""

    is_alone = True

    def wait_in_sync(self):
        self.check_alive()


def measure(arguments, placement, generator, contender, size_bytes, seed):
    command = [generator, "--portal", contender.portal, "--target", targets.IQN, "--lun", "0",
               "--seconds", str(arguments.seconds), "--warm-up", str(arguments.warm_up), "--region", str(size_bytes),
               "--seed", str(seed), "--workload", "randwrite", "--block-size", "4096", "--queue-depth", "32"]
    for pid in contender.pids().values():
        command += ["--watch-pid", str(pid)]
    before = contender.device()
    process = placement.spawn(command, placement.load_cpu, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    output, errors = process.communicate(timeout=arguments.seconds + 30)
    contender.check_alive()
    if process.returncode != 0:
        raise targets.ContenderError(f"{contender.name}: {errors.strip()}")
    after = contender.device()
    result = json.loads(output)
    result["log"] = {key: after[key] - before[key]
                     for key in ("al-writes", "al-hits", "al-misses", "al-waits", "al-evictions", "bm-writes")}
    return result


def run(arguments, placement, generator, binaries, base, log_directory):
    size_bytes = arguments.log_size_gib << 30
    directory = tempfile.mkdtemp(prefix="replblk-bench-log-", dir=base)
    results = {}
    try:
        for kind in (LoggedPair, LoggedAlone):
            made = [kind(updates, arguments.external_metadata, binaries, placement, directory, log_directory) for updates in (True, False)]
            try:
                for contender in made:
                    contender.prepare(size_bytes)
                for number in range(arguments.rounds):
                    for contender in made[number % 2:] + made[:number % 2]:
                        # One at a time: a daemon that flushes beside would be in the other's figures.
                        contender.start()
                        result = measure(arguments, placement, generator, contender, size_bytes, number + 1)
                        results.setdefault(contender.name, []).append(result)
                        contender.stop()
            finally:
                for contender in made:
                    contender.stop()
                    contender.remove_files()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"\n== activity log: 4k random write, QD 32, over a sparse file of {arguments.log_size_gib} GiB on ext4, "
          f"metadata {'in a file of its own' if arguments.external_metadata else 'internal'}, "
          f"{arguments.rounds} round(s) of {arguments.seconds} s")
    print(report.line_of(report.HEADINGS))
    rows = {name: report.Row(name, True, rounds) for name, rounds in results.items()}
    for row in rows.values():
        print(report.line_of(row.cells(None, None)))
    for name, rounds in results.items():
        totals = {key: sum(one["log"][key] for one in rounds) for key in rounds[0]["log"]}
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in totals.items()))
    for kind in ("pair", "alone"):
        ratio = rows[f"{kind}-log"].iops_median / rows[f"{kind}-nolog"].iops_median
        print(f"{kind}: with the log {100 * ratio:.0f} % of the IOPS without")
    sys.stdout.flush()
    return [{"contender": name, "rounds": rounds} for name, rounds in results.items()]
