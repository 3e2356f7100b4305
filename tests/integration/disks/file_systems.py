"""Small file systems on loop devices, for disks that fill up or hang, and a device that fails. Needs root; the caller of what mounts has a
mount namespace of its own."""

import fcntl
import os
import subprocess
import time

# include/uapi/linux/fcntl.h; Python's fcntl does not know them everywhere.
F_ADD_SEALS = 1033
F_SEAL_WRITE = 0x0008


def run(*words):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}")
    return done.stdout


def make_file_system(folder, size_bytes):
    image = folder + ".img"
    os.mkdir(folder)
    with open(image, "wb") as file:
        file.truncate(size_bytes)
    run("mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", image)
    run("mount", "-o", "loop", image, folder)


class FailingDevice:
    """A block device in memory that is read and, until fail(), written to; from then on each write is an I/O error, for ever.

    It is a loop device on a file that the kernel can be told to change no more. The kernel takes it away at the last close, so it is gone with
    this process and the daemons that use it.
    """

    def __init__(self, name, size_bytes):
        self._memory = os.memfd_create(name, os.MFD_ALLOW_SEALING)
        os.ftruncate(self._memory, size_bytes)
        self.path = run("losetup", "--find", "--show", f"/proc/{os.getpid()}/fd/{self._memory}").strip()
        self._device = os.open(self.path, os.O_RDONLY)
        run("losetup", "--detach", self.path)

    def fail(self):
        fcntl.fcntl(self._memory, F_ADD_SEALS, F_SEAL_WRITE)

    def content(self):
        return os.pread(self._memory, os.fstat(self._memory).st_size, 0)

    def close(self):
        os.close(self._device)
        os.close(self._memory)


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
            # The kernel ends what a daemon that has just exited had in flight, and then lets go of its files.
            deadline = time.monotonic() + 5
            while subprocess.run(["umount", folder], stderr=subprocess.DEVNULL, check=False).returncode != 0 and time.monotonic() < deadline:
                time.sleep(0.05)
