#!/usr/bin/env python3
"""Runs libiscsi's conformance tests (iscsi-test-cu --dataloss) against one replblkd, and holds the result to not_yet.txt.

That list says which tests fail or are skipped, and why. It may only shrink: a test that fails or is skipped without being
listed fails the run, and so does a listed one that does better than the list says. The portal is given twice, so that the
multipath tests run. Daemon and tests live in a network namespace of their own, with a sparse file as the disk.
"""

import argparse
import collections
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

IQN = "iqn.2026-11.org.example:conformance"
PORT = 3260
VOLUME_BYTES = 256 << 20
OWN_NETWORK = "--in-own-network"
PASS, SKIP, FAIL = "pass", "skip", "fail"
RANK = {PASS: 0, SKIP: 1, FAIL: 2}

CONFIG = """\
cluster {{
  name: "conformance"
  node {{ name: "a" address: "127.0.0.1" admin_socket: "{folder}/a.sock" }}
}}
resource {{
  name: "r0"
  target {{ iqn: "{iqn}" port: {port} }}
  volume {{ lun: 0  disk {{ on: "a" path: "{folder}/disk" io_mode: {io_mode} }}  logical_block_size: {block_bytes} }}
}}
"""


class RunError(Exception):
    """The tests could not be run, or not to their end."""


class Target:
    """One daemon with one volume, primary."""

    def __init__(self, replblkd, replblkctl, folder, block_bytes):
        self._ctl = [os.path.abspath(replblkctl), "--config", f"{folder}/node.conf", "--node", "a"]
        self._folder = folder
        with open(f"{folder}/disk", "wb") as disk:
            disk.truncate(VOLUME_BYTES)
        with open(f"{folder}/node.conf", "w", encoding="utf-8") as config:
            config.write(CONFIG.format(folder=folder, iqn=IQN, port=PORT, io_mode=self._io_mode(),
                                       block_bytes=block_bytes))
        self._run("create-md")
        with open(f"{folder}/log", "wb") as log:
            self._process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", os.path.abspath(replblkd), "--config",
                                              f"{folder}/node.conf", "--node", "a"],
                                             stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._wait_until_it_answers()
            self._run("primary", "--force")
        except BaseException:
            self.kill()
            raise

    def _io_mode(self):
        try:
            os.close(os.open(f"{self._folder}/disk", os.O_RDWR | os.O_DIRECT))
            return "direct"
        except OSError:
            return "buffered"

    def _run(self, *words, check=True):
        done = subprocess.run(self._ctl + list(words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20, check=False)
        if check and done.returncode != 0:
            raise RunError(f"replblkctl {' '.join(words)}: exit {done.returncode}\n{done.stdout}")
        return done

    def _wait_until_it_answers(self):
        deadline = time.monotonic() + 20
        while self._run("status", check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RunError(f"replblkd does not come up:\n{self.log_tail()}")
            time.sleep(0.1)

    def log_tail(self):
        with open(f"{self._folder}/log", encoding="utf-8", errors="replace") as log:
            return "".join(log.readlines()[-30:])

    def verdict(self):
        """None, or what is wrong with the daemon after the tests."""
        if self._process.poll() is not None:
            return f"replblkd died in the tests, exit {self._process.returncode}:\n{self.log_tail()}"
        json.loads(self._run("status", "--json").stdout)
        self._process.terminate()
        try:
            code = self._process.wait(10)
        except subprocess.TimeoutExpired:
            return "replblkd did not end within 10 s of SIGTERM"
        return f"replblkd ended with exit {code} on SIGTERM:\n{self.log_tail()}" if code else None

    def kill(self):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def parse(output):
    """{"Suite.Test": (result, what the test said)}, in the order of the run.

    CUnit's verbose mode prints "  Test: NAME ...", then what the test says, then "passed" or "FAILED" at the start of a
    line or right behind the dots. What follows "passed" on its line is the suite's clean-up and none of the test's business.
    """
    results = {}
    pieces = re.split(r"^(?:  Test: (\S+) \.\.\.|Suite: (\S+)\s*$)", output, flags=re.M)
    suite = None
    for test, name, text in zip(pieces[1::3], pieces[2::3], pieces[3::3]):
        if name:
            suite = name
            continue
        end = re.search(r"(?:\A|\n)(passed|FAILED)", text)
        if not end or end.group(1) == "FAILED":
            results[f"{suite}.{test}"] = (FAIL, text.strip())
        else:
            said = text[:end.start()].strip()
            results[f"{suite}.{test}"] = (SKIP if "[SKIPPED]" in said else PASS, said)
    return results


def read_not_yet(path):
    listed = {}
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            words, _, reason = line.partition("#")
            if not words.strip():
                continue
            try:
                test, result = words.split()
            except ValueError:
                test = result = ""
            if result not in (SKIP, FAIL) or not reason.strip() or test in listed:
                raise RunError(f"{path}:{number}: expected 'Suite.Test skip|fail  # reason', each test once")
            listed[test] = result
    return listed


def compare(results, listed):
    """What stands against the list, one sentence each."""
    problems = []
    for test, (result, said) in results.items():
        allowed = listed.get(test, PASS)
        if RANK[result] > RANK[allowed]:
            problems.append(f"{test}: {result}, expected {allowed}\n      " + said.replace("\n", "\n      "))
        elif RANK[result] < RANK[allowed]:
            problems.append(f"{test}: {result}, listed as {allowed}: " + ("remove it from the list" if result == PASS else "change the list"))
    problems += [f"{test}: listed, but there is no such test: remove it from the list" for test in listed if test not in results]
    return problems


def print_table(results):
    suites = collections.defaultdict(collections.Counter)
    for test, (result, _) in results.items():
        suites[test.split(".")[0]][result] += 1
    total = sum(suites.values(), collections.Counter())
    print(f"{'suite':<24}{'pass':>6}{'skip':>6}{'fail':>6}")
    for suite, counts in list(suites.items()) + [("total", total)]:
        print(f"{suite:<24}{counts[PASS]:>6}{counts[SKIP]:>6}{counts[FAIL]:>6}")


def run_tests(test, limit_s, is_wordy):
    url = f"iscsi://127.0.0.1:{PORT}/{IQN}/0"
    # Line-buffered, or results and what the tests say on standard error lose their order.
    words = ["stdbuf", "-oL", "iscsi-test-cu", "--dataloss", "--verbose", "--test", test] + (["--Verbose-scsi"] if is_wordy else []) + [url, url]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit_s, check=False)
        return done.stdout.decode(errors="replace"), None
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode(errors="replace"), f"iscsi-test-cu is not through within {limit_s} s"
    except FileNotFoundError as missing:
        raise RunError(f"{missing.filename} is missing: tools/dev setup installs it") from missing


def enter_own_network():
    if OWN_NETWORK not in sys.argv:
        words = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
        os.execvp(words[0], words + [sys.executable, "-B", *sys.argv, OWN_NETWORK])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def run(arguments):
    listed = read_not_yet(arguments.not_yet)
    folder = tempfile.mkdtemp(prefix="replblk-conformance-")
    target = None
    try:
        target = Target(arguments.replblkd, arguments.replblkctl, folder, arguments.block_bytes)
        begin = time.monotonic()
        output, trouble = run_tests(arguments.test, arguments.limit_s, arguments.wordy)
        took_s = time.monotonic() - begin
        if arguments.output:
            with open(arguments.output, "w", encoding="utf-8") as file:
                file.write(output)
        results = parse(output)
        wrong_end = target.verdict()
    finally:
        if target:
            target.kill()
        shutil.rmtree(folder, ignore_errors=True)
    print_table(results)
    counts = collections.Counter(result for result, _ in results.values())
    problems = [text for text in (trouble, wrong_end) if text]
    if arguments.test == "ALL":
        problems += compare(results, listed)
        summary = re.search(r"^\s+tests\s+(\d+)", output, re.M)
        if not summary or int(summary.group(1)) != len(results):
            problems.append(f"{len(results)} tests were read from the output, iscsi-test-cu says {summary.group(1) if summary else 'nothing'}:\n"
                            + output[-1500:])
        if counts[PASS] < arguments.passes_min:
            problems.append(f"{counts[PASS]} tests pass, at least {arguments.passes_min} must")
    else:
        for test, (result, said) in results.items():
            print(f"{test}: {result}" + (f"\n      {said}" if result != PASS else ""))
    print(f"\n{len(results)} tests in {took_s:.0f} s: {counts[PASS]} passed, {counts[SKIP]} skipped, {counts[FAIL]} failed")
    if problems:
        print(f"\nNot as {os.path.basename(arguments.not_yet)} has it:\n  " + "\n  ".join(problems))
    return 1 if problems else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--replblkd", required=True)
    parser.add_argument("--replblkctl", required=True)
    parser.add_argument("--test", default="ALL", help="a family, suite or test, as ALL.Read16; the list is compared with ALL only")
    parser.add_argument("--block-bytes", type=int, default=512, choices=(512, 4096), help="the list is for 512")
    parser.add_argument("--wordy", action="store_true", help="with libiscsi's own log in the --output")
    parser.add_argument("--not-yet", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "not_yet.txt"))
    parser.add_argument("--passes-min", type=int, default=180)
    parser.add_argument("--limit-s", type=int, default=180)
    parser.add_argument("--output", help="file for what iscsi-test-cu printed")
    parser.add_argument(OWN_NETWORK, action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    enter_own_network()
    try:
        return run(arguments)
    except RunError as problem:
        print(problem, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
