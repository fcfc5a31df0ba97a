# SPDX-License-Identifier: Apache-2.0
"""Mooncake's store over TCP on loopback: its master, and one client that is its storage too.

What it reads lies in memory, so it is listed beside the disk tiers and not compared with them.
Its client listens on all addresses whatever it is told: it gets a network of its own, which only
root can make.
"""

import ctypes
import fcntl
import pathlib
import socket
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

from mooncake.store import MooncakeDistributedStore
from peer import PAGE, Peer, content, first_word, memory, now, serve


def alone() -> None:
    """From now on this process has no network but a loopback that nobody else has."""
    clone_newnet, set_flags, up = 0x40000000, 0x8914, 1
    if ctypes.CDLL(None, use_errno=True).unshare(clone_newnet) != 0:
        raise PermissionError("a network of its own needs root: its client listens everywhere")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh14x", b"lo", up))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int, process: subprocess.Popen) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.1).close()
            return
        except OSError:
            if process.poll() is not None:
                break
            try:
                process.wait(timeout=0.05)
            except subprocess.TimeoutExpired:
                pass
    raise OSError("mooncake_master does not answer; it needs Debian's libibverbs1, libnl-3-200 and "
                  "libnl-route-3-200")


class Mooncake(Peer):
    tier = "memory"

    def version(self) -> str:
        name = "mooncake-transfer-engine-non-cuda"
        return f"{name} {version(name)}, DRAM over TCP on loopback, {self.depth} threads"

    def prepare(self) -> None:
        alone()
        port = free_port()
        master = pathlib.Path(sys.executable).with_name("mooncake_master")
        self.master = subprocess.Popen(
            [str(master), "-rpc_address=127.0.0.1", f"-rpc_port={port}",
             "-metrics_host=127.0.0.1", f"-metrics_port={free_port()}"],
            stdin=subprocess.DEVNULL, stdout=2, stderr=2, cwd=self.directory)
        wait_for(port, self.master)
        self.store = MooncakeDistributedStore()
        size = self.pages * PAGE
        code = self.store.setup("127.0.0.1", "P2PHANDSHAKE", 2 * size, 512 << 20, "tcp", "",
                                f"127.0.0.1:{port}")
        if code != 0:
            raise OSError(f"its client cannot be set up: {code}")
        source = content(self.pages)
        self.area, self.view = memory(self.pages)
        for area in (source, self.view):
            self.store.register_buffer(area.ctypes.data, area.nbytes)
        for page in range(self.pages):
            code = self.store.put_from(f"page-{page}", source.ctypes.data + page * PAGE, PAGE)
            if code != 0:
                raise OSError(f"page {page} cannot be stored: {code}")
        self.source = source
        self.threads = ThreadPoolExecutor(self.depth)
        list(self.threads.map(abs, range(64)))

    def load(self, job: tuple[str, int]) -> int:
        return self.store.get_into(job[0], job[1], PAGE)

    def read(self, order: list[int]) -> float:
        base = self.view.ctypes.data
        jobs = [(f"page-{page}", base + place * PAGE) for place, page in enumerate(order)]
        start = now()
        codes = list(self.threads.map(self.load, jobs))
        seconds = now() - start
        if any(code != PAGE for code in codes):
            raise OSError(f"a page cannot be read: {min(codes)}")
        return seconds

    def check(self, order: list[int]) -> None:
        for place, page in enumerate(order):
            if first_word(self.view[place * PAGE :]) != page + 1:
                raise ValueError(f"page {page} came back as another")
        self.view[:: PAGE // 8] = 0

    def close(self) -> None:
        master = getattr(self, "master", None)
        if master is not None:
            master.kill()
            master.wait()


serve(Mooncake)
