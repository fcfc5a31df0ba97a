# SPDX-License-Identifier: Apache-2.0
"""How much DRAM a process's KV really takes, seen from another process.

    Pss of the mappings that hold the arenas and the frame pools (/proc/PID/smaps)
  + pages of the swap file that lie in the page cache (mincore)

A mapping that reaches over a range's end counts whole, so the figure is never too small.
"""

import contextlib
import ctypes
import mmap
import os
import signal
import threading
import time

PAGE = os.sysconf("SC_PAGESIZE")


def parse_ranges(text):
    """Lines "start-end", hexadecimal, half-open -> [(start, end)]."""
    ranges = []
    for line in text.split():
        start, end = line.split("-")
        ranges.append((int(start, 16), int(end, 16)))
    return ranges


def pss_bytes(pid, ranges):
    """Pss of all mappings of `pid` that touch one of `ranges`."""
    total = 0
    counts = False
    with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as lines:
        for line in lines:
            head = line.split(None, 1)[0]
            if "-" in head and not head.endswith(":"):
                start, end = (int(part, 16) for part in head.split("-"))
                counts = any(start < high and low < end for low, high in ranges)
            elif counts and head == "Pss:":
                total += int(line.split()[1]) * 1024
    return total


def rss_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as lines:
        for line in lines:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} has no VmRSS")


class CachedFile:
    """Counts a file's pages in the page cache. Nothing is read, so nothing gets into the cache by it."""

    def __init__(self, path):
        self.path = path
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]

    def bytes(self):
        with open(self.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                return 0
            with mmap.mmap(
                file.fileno(), size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE
            ) as view:
                # PROT_WRITE and private only so that ctypes may take the address; nothing is written.
                first = ctypes.c_char.from_buffer(view)
                pages = (ctypes.c_ubyte * (-(-size // PAGE)))()
                failed = self.libc.mincore(ctypes.addressof(first), size, pages)
                del first  # or the mapping could not be closed
                if failed:
                    raise OSError(ctypes.get_errno(), f"mincore of {self.path}")
                return sum(page & 1 for page in pages) * PAGE


def is_stopped(pid):
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/stat", encoding="ascii", errors="replace") as file:
            if file.read().rsplit(")", 1)[1].split()[0] not in "TtZX":
                return False
    return True


@contextlib.contextmanager
def standing_still(pid, patience_s=0.05):
    """Stops all threads of a process for the block. If one sits in the kernel for long, goes on with it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        limit = time.monotonic() + patience_s
        while not is_stopped(pid) and time.monotonic() < limit:
            time.sleep(0.0005)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class Sampler:
    """Samples in a thread until stopped; `maximum` is the largest sum seen."""

    def __init__(self, pid, ranges, swap_path, period_s=0.1):
        self.pid = pid
        self.ranges = ranges
        self.swap = CachedFile(swap_path)
        self.period_s = period_s
        self.maximum = 0
        self.mapped = 0  # the two parts of the maximum
        self.cached = 0
        self.lock = threading.Lock()  # one thread at a time stops and continues the process
        self.samples = 0
        self.error = None
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def measure(self):
        return pss_bytes(self.pid, self.ranges), self.swap.bytes()

    def sample(self):
        """Adds one sample. A page on its way from one range to another may be seen in both, so a sum that
        would be the new maximum is taken again while the process stands still."""
        self.samples += 1
        if sum(self.measure()) <= self.maximum:
            return
        with self.lock, standing_still(self.pid):
            mapped, cached = self.measure()
        if mapped + cached > self.maximum:
            self.maximum, self.mapped, self.cached = mapped + cached, mapped, cached

    def run(self):
        try:
            while not self.stopped.wait(self.period_s):
                self.sample()
        except (OSError, ValueError) as error:
            self.error = error

    def __enter__(self):
        self.sample()
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()


def plain_read_gbps(path, limit_bytes=256 << 20, piece=2 << 20, workers=4):
    """Reads what the file holds with O_DIRECT in 2 MiB pieces, four at a time: the disk without us."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        size = os.fstat(handle).st_size
        offsets = []
        at = 0
        while at < size and len(offsets) * piece < limit_bytes:
            try:
                at = os.lseek(handle, at, os.SEEK_DATA) // piece * piece
            except OSError:
                break  # only holes are left
            offsets.append(at)
            at += piece
        if not offsets:
            raise ValueError(f"{path} holds nothing to read")
        done = [0] * workers

        def work(number):
            with mmap.mmap(-1, piece) as buffer:  # page-aligned, as O_DIRECT asks
                for offset in offsets[number::workers]:
                    done[number] += os.preadv(handle, [buffer], offset)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
        begin = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - begin
        return sum(done) / seconds / 1e9
    finally:
        os.close(handle)
