"""Small file systems on loop devices, for disks that fill up or hang. Needs root; the caller has a mount namespace of its own."""

import os
import subprocess


def run(*words):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}")


def make_file_system(folder, size_bytes):
    image = folder + ".img"
    os.mkdir(folder)
    with open(image, "wb") as file:
        file.truncate(size_bytes)
    run("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", image)
    run("mount", "-o", "loop", image, folder)


def hang(folder):
    """Writes to it wait from now on."""
    run("fsfreeze", "-f", folder)


def go_on(folder):
    run("fsfreeze", "-u", folder)


def unmount_all(place):
    """Those in `place`, hanging or not."""
    for name in sorted(os.listdir(place)):
        folder = os.path.join(place, name)
        if os.path.ismount(folder):
            subprocess.run(["fsfreeze", "-u", folder], stderr=subprocess.DEVNULL, check=False)
            subprocess.run(["umount", folder], check=False)
