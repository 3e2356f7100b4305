"""What a pair costs that does nothing: both daemons, Established, the initiators' side quiet. Nearly all of it is the heartbeat."""

import os
import shutil
import tempfile
import time

VOLUME_BYTES = 64 << 20


def cpu_seconds(pid):
    """Of all its threads, from the scheduler's clock: /proc/PID/stat counts in hundredths of a second."""
    total_ns = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat") as statistics:
            total_ns += int(statistics.read().split()[0])
    return total_ns / 1e9


def run(arguments, placement, make_contenders, log_directory):
    directory = tempfile.mkdtemp(prefix="replblk-bench-idle-", dir=arguments.ext4_dir)
    print(f"\n== a pair that does nothing, for {arguments.idle_seconds:.0f} s")
    print(f"{'process':12}{'CPU % of one core':>20}")
    made = []
    try:
        made = [contender for contender in make_contenders(arguments, placement, directory, log_directory)
                if contender.name == "replblk-pair"]
        for contender in made:
            contender.prepare(VOLUME_BYTES)
            contender.start()
            contender.wait_in_sync()
            time.sleep(2)
            before = {label: cpu_seconds(pid) for label, pid in contender.pids().items()}
            began = time.monotonic()
            time.sleep(arguments.idle_seconds)
            elapsed = time.monotonic() - began
            contender.check_alive()
            for label, pid in contender.pids().items():
                print(f"{label:12}{100 * (cpu_seconds(pid) - before[label]) / elapsed:>20.3f}")
    finally:
        for contender in made:
            contender.stop()
            contender.remove_files()
        shutil.rmtree(directory, ignore_errors=True)
