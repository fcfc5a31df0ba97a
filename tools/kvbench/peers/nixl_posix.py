# SPDX-License-Identifier: Apache-2.0
"""NIXL's POSIX plug-in: one file, O_DIRECT, a transfer for each page, `depth` of them in flight."""

import logging
import os
from importlib.metadata import version

logging.disable(logging.CRITICAL)

from nixl._api import nixl_agent, nixl_agent_config  # noqa: E402

from peer import PAGE, Peer, content, first_word, memory, now, serve  # noqa: E402


class Nixl(Peer):
    def version(self) -> str:
        return f"nixl {version('nixl')}, POSIX plug-in with io_uring, O_DIRECT"

    def prepare(self) -> None:
        self.agent = nixl_agent("kvbench", nixl_agent_config(backends=[]))
        self.agent.create_backend("POSIX", {"use_uring": "true"})
        path = os.path.join(self.directory, "pages")
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600)
        source = memoryview(content(self.pages))
        for page in range(self.pages):
            at = page * PAGE
            if os.pwrite(self.file, source[at : at + PAGE], at) != PAGE:
                raise OSError("a short write")
        self.area, self.view = memory(self.pages)
        self.base = self.view.ctypes.data
        self.keep = (
            self.agent.register_memory([(self.base, self.pages * PAGE, 0, "m")], "DRAM"),
            self.agent.register_memory([(0, self.pages * PAGE, self.file, "f")], "FILE"),
        )

    def transfer(self, place: int, page: int):
        to = self.agent.get_xfer_descs([(self.base + place * PAGE, PAGE, 0)], "DRAM")
        of = self.agent.get_xfer_descs([(page * PAGE, PAGE, self.file)], "FILE")
        return self.agent.initialize_xfer("READ", to, of, self.agent.name)

    def read(self, order: list[int]) -> float:
        waiting = [self.transfer(place, page) for place, page in enumerate(order)]
        done = []
        flying = []
        start = now()
        while waiting or flying:
            while waiting and len(flying) < self.depth:
                handle = waiting.pop()
                flying.append((handle, self.agent.transfer(handle)))
            still = []
            for handle, state in flying:
                state = state if state == "DONE" else self.agent.check_xfer_state(handle)
                if state == "ERR":
                    raise OSError("a transfer failed")
                (done if state == "DONE" else still).append((handle, state))
            flying = still
        seconds = now() - start
        for handle, _ in done:
            self.agent.release_xfer_handle(handle)
        return seconds

    def check(self, order: list[int]) -> None:
        for place, page in enumerate(order):
            if first_word(self.view[place * PAGE :]) != page + 1:
                raise ValueError(f"page {page} came back as another")
        self.view[:: PAGE // 8] = 0


serve(Nixl)
