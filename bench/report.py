"""Turns the measured rounds into tables. Nothing here runs or measures anything."""

import os
import platform
import statistics
import subprocess


def median(values):
    return statistics.median(values)


def machine_lines(placement, commit):
    model = "unknown CPU"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    with open("/proc/meminfo") as file:
        memory_gib = int(file.readline().split()[1]) / (1 << 20)
    with open("/proc/sys/net/ipv4/tcp_congestion_control") as file:
        congestion = file.read().strip()
    return [
        f"machine: {model}, {os.cpu_count()} CPUs, {memory_gib:.0f} GiB; kernel {platform.release()}; "
        f"tcp {congestion}",
        f"commit:  {commit}",
        f"placing: {placement.describe()}",
    ]


def commit_of(root):
    try:
        commit = subprocess.run(
            ["git", "-C", root, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "-C", root, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True,
            check=True
        ).stdout.strip()
        return commit + (" with uncommitted changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


HEADINGS = ("contender", "IOPS", "min..max", "mean us", "p50 us", "p99 us", "CPU us/IO", "2nd us/IO", "gen us/IO",
            "foreign %", "IOPS/tgt", "CPU/tgt")
WIDTHS = (17, 9, 17, 9, 9, 9, 10, 10, 10, 10, 9, 8)


def line_of(cells):
    return " ".join(cell.ljust(width) if index == 0 else cell.rjust(width)
                    for index, (cell, width) in enumerate(zip(cells, WIDTHS)))


class Row:
    """All rounds of one contender in one workload on one backing."""

    def __init__(self, contender, flushes, rounds):
        self.contender = contender
        self.flushes = flushes
        self.iops = [one["iops"] for one in rounds]
        self.mean = median([one["mean_us"] for one in rounds])
        self.p50 = median([one["p50_us"] for one in rounds])
        self.p99 = median([one["p99_us"] for one in rounds])
        self.cpu = [median([one["watched_cpu_us_per_op"][index] for one in rounds])
                    for index in range(len(rounds[0]["watched_cpu_us_per_op"]))]
        self.generator_cpu = median([one["own_cpu_us_per_op"] for one in rounds])
        self.foreign = max(one["foreign_cpu_percent"] for one in rounds)

    @property
    def iops_median(self):
        return median(self.iops)

    def cells(self, best_iops, best_cpu):
        return (
            self.contender,
            f"{self.iops_median:.0f}",
            f"{min(self.iops):.0f}..{max(self.iops):.0f}",
            f"{self.mean:.1f}",
            f"{self.p50:.1f}",
            f"{self.p99:.1f}",
            f"{self.cpu[0]:.2f}",
            f"{self.cpu[1]:.2f}" if len(self.cpu) > 1 else "-",
            f"{self.generator_cpu:.2f}",
            f"{self.foreign:.0f}",
            f"{self.iops_median / best_iops:.2f}" if best_iops else "-",
            f"{self.cpu[0] / best_cpu:.2f}" if best_cpu else "-",
        )


def best_of_tgt(rows, needs_flush):
    """tgt's best figures in a row, taken one by one from its variants: the hardest yardstick. A variant that answers
    SYNCHRONIZE CACHE without flushing is left out where the row is about flushing."""
    usable = [row for row in rows if row.contender.startswith("tgt") and (row.flushes or not needs_flush)]
    if not usable:
        return None, None
    return max(row.iops_median for row in usable), min(row.cpu[0] for row in usable)


UNREPLICATED = ("replblk-single", "replblk-buffered")


def print_table(title, workloads, rows_of, out):
    print(f"\n== {title}", file=out)
    verdicts = []
    for workload in workloads:
        rows = rows_of[workload.name]
        best_iops, best_cpu = best_of_tgt(rows, workload.sync)
        print(f"\n{workload.title}", file=out)
        print(line_of(HEADINGS), file=out)
        for row in rows:
            cells = row.cells(best_iops, best_cpu)
            note = "   (answers SYNCHRONIZE CACHE without a flush)" if workload.sync and not row.flushes else ""
            print(line_of(cells) + note, file=out)
        ours = [row for row in rows if row.contender in UNREPLICATED]
        if ours and best_iops:
            verdicts.append((workload, max(ours, key=lambda row: row.iops_median), best_iops))
    if verdicts:
        won = [one for one in verdicts if one[1].iops_median > one[2]]
        print(f"\nunreplicated (better of its io_modes) beats tgt's best IOPS in {len(won)} of {len(verdicts)} rows",
              file=out)
        for workload, row, best_iops in verdicts:
            print(f"  {row.iops_median / best_iops:5.2f}  {workload.title} ({row.contender})", file=out)


# What the fastest polling target reaches on one core of this kind of machine (4 KiB, queue depth 32).
POLLING_IOPS = {"randwrite-qd32": 128000, "randread-qd32": 140000}
POLLING_CPU_US = 7.5


def print_distance(rows_of, out):
    for workload, goal in POLLING_IOPS.items():
        for row in rows_of.get(workload, []):
            if row.contender == "replblk-single":
                print(f"{workload}: {row.iops_median:.0f}/s is {100 * row.iops_median / goal:.0f} % of a polling target's "
                      f"{goal}/s; {row.cpu[0]:.1f} us CPU against its {POLLING_CPU_US}", file=out)
