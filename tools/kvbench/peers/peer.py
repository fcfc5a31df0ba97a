# SPDX-License-Identifier: Apache-2.0
"""What the peers' scripts share: the conversation with kvbench, the pages, the check of what came.

    kvbench --{"order": [7, 3, ...]}--> script: reads these pages, as many at once as told
            <--{"seconds": 0.04}------

The first line that a script says is {"ready": ...} or {"error": ...}. It ends, and its files go,
when its input does. Whatever libraries print goes to standard error.
"""

import argparse
import json
import mmap
import os
import shutil
import sys
import tempfile
import time

import numpy

PAGE = 2 << 20


def memory(pages: int) -> tuple[mmap.mmap, numpy.ndarray]:
    """Page-aligned memory of `pages` pages that is there already."""
    area = mmap.mmap(-1, pages * PAGE + PAGE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        area.madvise(mmap.MADV_HUGEPAGE)
    whole = numpy.frombuffer(area, dtype=numpy.uint8)
    skip = -whole.ctypes.data % PAGE
    view = whole[skip : skip + pages * PAGE]
    view[:] = 1
    return area, view


def content(pages: int) -> numpy.ndarray:
    """Random bytes; each page begins with its number."""
    one = numpy.random.default_rng(2).integers(0, 256, PAGE, dtype=numpy.uint8)
    _, view = memory(pages)
    for i in range(pages):
        view[i * PAGE : (i + 1) * PAGE] = one
        view[i * PAGE : i * PAGE + 8] = numpy.frombuffer(
            (i + 1).to_bytes(8, "little"), dtype=numpy.uint8
        )
    return view


def first_word(page) -> int:
    return int.from_bytes(bytes(page[:8]), "little")


class Peer:
    """One system. `prepare` stores all pages, `read` brings some of them to memory."""

    tier = "disk"  # or "memory": listed, not compared

    def __init__(self, directory: str, pages: int, depth: int):
        self.directory, self.pages, self.depth = directory, pages, depth

    def version(self) -> str:
        raise NotImplementedError

    def prepare(self) -> None:
        raise NotImplementedError

    def read(self, order: list[int]) -> float:
        """Seconds until all of them were there. What came is kept for `check`."""
        raise NotImplementedError

    def check(self, order: list[int]) -> None:
        """Raises: a page has not the bytes that were stored. Gives back what `read` kept."""
        raise NotImplementedError

    def close(self) -> None:
        pass


def serve(make) -> None:
    """Runs a script: `make(directory, pages, depth)` is its Peer."""
    say = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", required=True)
    parser.add_argument("--pages", type=int, required=True)
    parser.add_argument("--depth", type=int, required=True)
    options = parser.parse_args()

    def tell(**message) -> None:
        say.write(json.dumps(message) + "\n")
        say.flush()

    directory = tempfile.mkdtemp(prefix="kvbench-peer-", dir=options.dir)
    peer = None
    try:
        peer = make(directory, options.pages, options.depth)
        peer.prepare()
        os.sync()
        tell(ready=True, version=peer.version(), tier=peer.tier)
        for line in sys.stdin:
            order = json.loads(line)["order"]
            seconds = peer.read(order)
            peer.check(order)
            tell(seconds=seconds)
    except BrokenPipeError:
        pass
    except Exception as error:  # whatever it is, kvbench has to hear of it
        tell(error=f"{type(error).__name__}: {error}"[:400])
    finally:
        if peer is not None:
            peer.close()
        shutil.rmtree(directory, ignore_errors=True)
    os._exit(0)  # libraries' threads do not hold it up


now = time.perf_counter
