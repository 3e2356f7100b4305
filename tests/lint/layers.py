#!/usr/bin/env python3
"""Fails on an include that points upward or sideways between the folders of src/, and on system calls, clocks, threads and
randomness outside the folders that may have them (docs/ARCHITECTURE.md). Usage: layers.py SOURCE_ROOT"""

import pathlib
import re
import sys

# What each folder may include besides itself. Everything that is not listed is an upward or sideways edge.
ALLOWED = {
    "base": set(),
    "ports": {"base"},
    "blockdev": {"base", "ports"},
    "scsi": {"base", "ports", "blockdev/block_request.hpp"},
    "iscsi": {"base", "ports", "scsi"},
    "replication": {"base", "ports", "blockdev"},
    "membership": {"base", "ports", "blockdev/record.hpp"},
    "runtime": {"base", "ports"},
    "node": {"base", "ports", "blockdev", "scsi", "iscsi", "replication", "membership"},
    "control": {"base", "ports", "blockdev", "node", "runtime"},
}
# main.cpp joins everything.
OUTSIDE_WORLD = {"runtime", "control", "main"}

SYSTEM = re.compile(
    r'#\s*include\s*<(sys/[a-z_]+\.h|unistd\.h|fcntl\.h|netinet/[a-z_]+\.h|arpa/[a-z_]+\.h|netdb\.h|poll\.h|signal\.h|csignal|'
    r'time\.h|ctime|thread|mutex|shared_mutex|condition_variable|atomic|future|random|fstream|filesystem|liburing\.h|'
    r'linux/[a-z_]+\.h|spdlog/[^>]+|blkid[^>]*)>')
CLOCK = re.compile(r"\b(system_clock|steady_clock|high_resolution_clock|clock_gettime|gettimeofday|std::rand|getrandom)\b")
EXTERNAL = {
    "boost": (re.compile(r"#\s*include\s*<boost/"), {"control"}),
    "spdlog": (re.compile(r"#\s*include\s*<spdlog/"), {"main", "control"}),
    "CLI11": (re.compile(r"#\s*include\s*<CLI/"), {"main", "control"}),
}
COROUTINE = re.compile(r"\bco_(await|return|yield)\b")
PROTOBUF = re.compile(r'#\s*include\s*("[a-z_]+\.pb\.h"|<google/protobuf/)')
# Reading node.conf and its secret is node's one look at the file system; addresses and paths are checked as text by the
# functions that know their grammar (inet_pton, lexically_normal), which touch nothing.
EXEMPT = {("node/config_file.cpp", "fstream"), ("node/config_file.cpp", "filesystem"),
          ("node/config_secret.cpp", "fstream"), ("node/config_secret.cpp", "filesystem"),
          ("node/config_rules.cpp", "filesystem"),
          ("node/config_rules.cpp", "arpa/inet.h"), ("node/config_rules.cpp", "netinet/in.h")}


def folder_of(path):
    return path.parts[0] if len(path.parts) > 1 else "main"


def check(root):
    problems = []
    source = root / "src"
    for file in sorted(source.rglob("*.[ch]pp")):
        path = file.relative_to(source)
        folder = folder_of(path)
        text = file.read_text()
        for number, line in enumerate(text.splitlines(), 1):
            where = f"src/{path}:{number}"
            match = re.match(r'\s*#\s*include\s*"([a-z_]+)/([a-z_0-9/]+\.hpp)"', line)
            if match and folder != "main":
                target, whole = match.group(1), f"{match.group(1)}/{match.group(2)}"
                if target != folder and target not in ALLOWED[folder] and whole not in ALLOWED[folder]:
                    problems.append(f"{where}: {folder} must not include {whole}")
            if folder not in OUTSIDE_WORLD:
                found = SYSTEM.search(line)
                if found and not any(str(path) == name and word in line for name, word in EXEMPT):
                    problems.append(f"{where}: {folder} must not touch the system: {found.group(0)}")
                if CLOCK.search(line):
                    problems.append(f"{where}: {folder} must get time and randomness through ports")
            for name, (pattern, folders) in EXTERNAL.items():
                if pattern.search(line) and folder not in folders:
                    problems.append(f"{where}: {name} belongs to {', '.join(sorted(folders))}")
            if PROTOBUF.search(line) and file.suffix == ".hpp" and folder != "control":
                problems.append(f"{where}: protobuf stays inside .cpp files")
            if COROUTINE.search(line.split("//")[0]):
                problems.append(f"{where}: g++ 12 miscompiles coroutines")
    return problems


def main():
    problems = check(pathlib.Path(sys.argv[1]))
    for problem in problems:
        print(problem)
    print(f"{len(problems)} layer violations")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
