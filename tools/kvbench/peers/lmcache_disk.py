# SPDX-License-Identifier: Apache-2.0
"""LMCache's local disk backend over its CPU backend, O_DIRECT, `depth` threads that get chunks."""

import asyncio
import inspect
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

os.environ.setdefault("LMCACHE_TRACK_USAGE", "false")
os.environ.setdefault("LMCACHE_LOG_LEVEL", "ERROR")

import torch  # noqa: E402
from lmcache.utils import CacheEngineKey  # noqa: E402
from lmcache.v1.config import LMCacheEngineConfig  # noqa: E402
from lmcache.v1.memory_management import MemoryFormat  # noqa: E402
from lmcache.v1.metadata import LMCacheMetadata  # noqa: E402
from lmcache.v1.storage_backend.local_cpu_backend import LocalCPUBackend  # noqa: E402
from lmcache.v1.storage_backend.local_disk_backend import LocalDiskBackend  # noqa: E402

from peer import PAGE, Peer, now, serve  # noqa: E402

LAYERS, TOKENS, HIDDEN = 4, 256, 512  # 2 * 4 * 256 * 512 numbers of 2 bytes: 2 MiB
SHAPE = torch.Size([2, LAYERS, TOKENS, HIDDEN])


def call(kind, **arguments):
    """Versions differ in what they want: those that this one knows."""
    known = inspect.signature(kind).parameters
    return kind(**{name: value for name, value in arguments.items() if name in known})


class Lmcache(Peer):
    def version(self) -> str:
        return f"lmcache {version('lmcache')}, local disk, O_DIRECT, {self.depth} threads"

    def prepare(self) -> None:
        torch.set_num_threads(1)
        gib = self.pages * PAGE / 2**30
        config = LMCacheEngineConfig.from_defaults(
            chunk_size=TOKENS,
            local_cpu=True,
            max_local_cpu_size=gib + 0.5,
            local_disk=f"file://{self.directory}/",
            max_local_disk_size=gib + 1,
            extra_config={"use_odirect": True},
        )
        metadata = call(
            LMCacheMetadata,
            model_name="kvbench",
            world_size=1,
            local_world_size=1,
            worker_id=0,
            local_worker_id=0,
            kv_dtype=torch.float16,
            kv_shape=(LAYERS, 2, TOKENS, 4, 128),
        )
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        self.cpu = LocalCPUBackend(config, metadata, "cpu")
        self.disk = LocalDiskBackend(config, loop, self.cpu, "cpu", metadata=metadata)
        self.keys = [
            call(
                CacheEngineKey,
                model_name="kvbench",
                world_size=1,
                worker_id=0,
                chunk_hash=1000 + page,
                dtype=torch.float16,
            )
            for page in range(self.pages)
        ]
        values = torch.randint(-30000, 30000, SHAPE, dtype=torch.int16)
        for page, key in enumerate(self.keys):
            chunk = self.cpu.allocate(SHAPE, torch.float16, fmt=MemoryFormat.KV_2LTD)
            stored = chunk.tensor.view(torch.int16)
            stored.copy_(values)
            stored.view(-1)[0] = page + 1
            self.disk.submit_put_task(key, chunk)
            while self.disk.exists_in_put_tasks(key):
                time.sleep(0.001)
            while chunk.get_ref_count() > 0:
                chunk.ref_count_down()
        self.threads = ThreadPoolExecutor(self.depth)
        list(self.threads.map(abs, range(64)))

    def read(self, order: list[int]) -> float:
        keys = [self.keys[page] for page in order]
        start = now()
        self.chunks = list(self.threads.map(self.disk.get_blocking, keys))
        return now() - start

    def check(self, order: list[int]) -> None:
        for page, chunk in zip(order, self.chunks):
            if chunk is None or int(chunk.tensor.view(torch.int16).view(-1)[0]) != page + 1:
                raise ValueError(f"page {page} came back as another")
            while chunk.get_ref_count() > 0:
                chunk.ref_count_down()
            self.cpu.remove(self.keys[page])
        self.chunks = []


serve(Lmcache)
