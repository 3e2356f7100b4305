"""Memory at rest with a large sparse volume, time from process start to the first login, size of the binaries."""

import json
import os
import shutil
import subprocess
import tempfile
import time

import contenders as targets

VOLUME_BYTES = 100 << 30


def memory_kib(pid):
    """Resident and proportional set size; the latter does not count shared libraries twice."""
    values = {}
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            fields = line.split()
            if fields[0] in ("Rss:", "Pss:"):
                values[fields[0][:-1]] = int(fields[1])
    return values["Rss"], values["Pss"]


def first_login(contender, generator, placement):
    """Seconds from just before the first process is started until a login has succeeded."""
    begin_ns = time.monotonic_ns()
    contender.start()
    ready_ns = time.monotonic_ns()
    process = placement.spawn(
        [generator, "--portal", contender.portal, "--target", targets.IQN, "--lun", str(contender.lun),
         "--login-only"], placement.load_cpu, stdout=subprocess.PIPE, text=True)
    output, _ = process.communicate(timeout=30)
    if process.returncode != 0:
        raise targets.ContenderError(f"{contender.name}: no login")
    return (json.loads(output)["monotonic_ns"] - begin_ns) / 1e6, (ready_ns - begin_ns) / 1e6


def stripped_bytes(path):
    with tempfile.TemporaryDirectory() as directory:
        copy = os.path.join(directory, "stripped")
        subprocess.run(["strip", "-o", copy, path], check=True)
        return os.path.getsize(copy)


def run(arguments, placement, generator, make_contenders, log_directory):
    directory = tempfile.mkdtemp(prefix="replblk-bench-footprint-", dir=arguments.ext4_dir)
    made = []
    print(f"\n== footprint, {VOLUME_BYTES >> 30} GiB sparse volume")
    print(f"{'contender':18}{'process':12}{'RSS KiB':>10}{'PSS KiB':>10}{'to first login ms':>20}")
    try:
        made = [contender for contender in make_contenders(arguments, placement, directory, log_directory)
                if contender.name not in ("replblk-buffered", "null")]
        for contender in made:
            contender.prepare(VOLUME_BYTES, sparse=True)
            if contender.name == "replblk-pair":
                # Connected and in no role: a promotion would start to copy 100 GiB.
                contender.start_daemons()
                contender.wait_connected()
            else:
                login_ms, configured_ms = first_login(contender, generator, placement)
            time.sleep(0.5)
            contender.check_alive()
            for label, pid in contender.pids().items():
                resident, proportional = memory_kib(pid)
                login = "-" if contender.name == "replblk-pair" else f"{login_ms:.1f}"
                print(f"{contender.name:18}{label:12}{resident:>10}{proportional:>10}{login:>20}")
            if contender.name != "replblk-pair":
                print(f"{'':18}(of these {configured_ms:.1f} ms until its administration commands had returned)")
            contender.stop()
            contender.remove_files()
    finally:
        for contender in made:
            contender.stop()
            contender.remove_files()
        shutil.rmtree(directory, ignore_errors=True)
    print(f"\n{'binary':40}{'bytes':>12}{'stripped':>12}")
    for path in [os.path.join(arguments.build, "replblkd"), os.path.join(arguments.build, "replblkctl"),
                 shutil.which("tgtd")]:
        if path and os.path.exists(path):
            print(f"{os.path.basename(path):40}{os.path.getsize(path):>12}{stripped_bytes(path):>12}")
