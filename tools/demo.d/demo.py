#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Serves chats with an unmodified llama.cpp whose KV cache is larger than the DRAM it is given.

  1. stock     the engine as it is; what it puts out is the reference
  2. again     the same for two chats: is the reference itself repeatable?
  3. kvmm      the same chats on kvmm. Between its turns a chat goes fully to disk. Every token and every
               log-probability is compared with the reference, bit for bit
  4. controls  KV is damaged on purpose, in memory and on disk: the comparison and kvmm must notice

Ends with a table, one chat's page map and build/demo/result.json. Exit status: 0 everything as promised,
1 something was not, 77 this machine or user may not (with the lines that mend it).
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "tools", "engines", "llama")]

import compare  # noqa: E402
import fetch  # noqa: E402
import host  # noqa: E402
import report  # noqa: E402
import sampler  # noqa: E402
import verdict  # noqa: E402
from control import Control, ControlError  # noqa: E402
from runner import Conversation, Engine, RunError, Schedule  # noqa: E402

TARGETS = ["kvmm", "kvmm-ggml", "kvctl", "kvmm-corrupt-slot"]
CONTROL_PLANE = "cache_k_l5"
SWAP_BYTES = 1 << 30


def arguments():
    parser = argparse.ArgumentParser(
        prog="tools/demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="chats of 4,000 tokens and more")
    parser.add_argument(
        "--keep", action="store_true", help="go on serving until Ctrl-C, for kvctl top"
    )
    parser.add_argument(
        "--json", action="store_true", help="print result.json instead of the table"
    )
    parser.add_argument("--chats", type=int, default=8, help="how many, 3 to 30 (default 8)")
    parser.add_argument("--turns", type=int, default=3, help="turns of every chat (default 3)")
    parser.add_argument(
        "--turn-tokens", type=int, default=64, help="generated in a turn (default 64)"
    )
    parser.add_argument("--chat-tokens", type=int, help="of a chat's first message (default 1,500)")
    parser.add_argument("--dram", type=int, help="MiB of DRAM for KV (default 32; --full: 56)")
    parser.add_argument("--page", type=int, default=64, help="KiB of a page (default 64)")
    parser.add_argument("--lanes", type=int, default=32, help="slots of the server (default 32)")
    parser.add_argument("--lane-tokens", type=int, default=32768, help="tokens of a slot")
    parser.add_argument("--threads", type=int, default=2, help="the engine's threads (default 2)")
    parser.add_argument("--cache-type", default="f16", choices=["f16", "q8_0"], help="KV elements")
    parser.add_argument(
        "--out", default=os.path.join(ROOT, "build", "demo"), help="where results go"
    )
    parser.add_argument("--swap", help="folder for the swap file (default: --out)")
    parser.add_argument("--swap-driver", help="shared object with the swap file's driver")
    parser.add_argument("--build", help="use this build folder as it is")
    options = parser.parse_args()
    if not 3 <= options.chats <= options.lanes - 2:
        parser.error(f"--chats must be 3 to {options.lanes - 2}")
    if options.turns < 3:
        parser.error("--turns must be at least 3: a chat goes out and back between its turns")
    options.chat_tokens = options.chat_tokens or (4000 if options.full else 1500)
    if options.chat_tokens < 640:
        parser.error(
            "--chat-tokens must be at least 640: a chat that fits into the model's sliding "
            "window is computed again by the engine at each turn"
        )
    options.dram = options.dram or (56 if options.full else 32)
    options.swap = options.swap or options.out
    return options


class Demo:
    """One run of everything. `result` has the fields of result.json when it is through."""

    def __init__(self, options, progress):
        self.options = options
        self.progress = progress
        self.schedule = Schedule(options.chats, options.turns)
        self.result = {}
        self.extra = {}
        self.pagemap = ""

    def path(self, name):
        return os.path.join(self.options.out, name)

    # ---- before the runs

    def prepare(self):
        host.check_userfaultfd()
        os.makedirs(self.options.out, exist_ok=True)
        os.makedirs(self.options.swap, exist_ok=True)
        host.check_space(self.options.swap, SWAP_BYTES)
        self.progress.step("engine and model")
        self.found = fetch.fetch(self.progress.step)
        if self.options.build:
            self.build = os.path.abspath(self.options.build)
        else:
            self.progress.step("building preset release")
            self.build = host.build(ROOT, self.progress, TARGETS)
        self.plugin = os.path.join(self.build, "lib", "libkvmm-ggml.so")
        self.swap_path = os.path.join(os.path.abspath(self.options.swap), "demo.swap")
        for stale in (self.swap_path, self.path("result.json")):
            if os.path.exists(stale):
                os.remove(stale)
        self.result["engine"] = self.found["engine_name"].replace("==", " ")
        self.result["model"] = self.found["model_name"]
        self.result["sessions"] = self.options.chats

    def tool(self, name):
        return os.path.join(self.build, "bin", name)

    def show(self, run, done, steps, chat, reply):
        self.progress.now(
            f"{run}  {done}/{steps}  chat {chat}: first token {reply['first_token_ms']:.0f} ms, "
            f"turn {reply['wall_ms'] / 1e3:.1f} s"
        )

    # ---- 1 and 2: the reference

    def stock(self, name, steps, measure):
        transcript = compare.Transcript(self.path(f"{name}.jsonl"))
        log = self.path(f"{name}.log")
        with Engine(self.found, self.options, log) as engine:
            talk = Conversation(engine, self.options, transcript)
            for done, (phase, chat) in enumerate(steps, 1):
                if measure and phase != "main" and "rss_mib_stock" not in self.result:
                    self.result["rss_mib_stock"] = round(sampler.rss_mib(engine.pid), 1)
                self.show(name, done, len(steps), chat, talk.turn(chat))
            if measure:
                self.result["start_s_stock"] = round(engine.start_s, 3)
                unused = self.options.lanes - 1
                times = [talk.prefill(chat, unused - i) for i, chat in enumerate(self.timed_few())]
                self.result["first_token_ms_prefill"] = round(statistics.median(times), 1)
            engine.quit()
        transcript.close()
        return compare.load(self.path(f"{name}.jsonl"))

    def timed_few(self):
        """Chats that are computed again: as many as fit into unused slots, two are enough."""
        return self.schedule.timed[: min(2, self.options.lanes - self.options.chats)]

    # ---- 3: the same on kvmm

    def plugin_environment(self):
        driver = self.options.swap_driver
        return {
            "KVMM_MODEL_ID": self.found["model_sha256"],
            "KVMM_DRAM_BYTES": f"{self.options.dram}M",
            "KVMM_SWAP_PATH": self.swap_path,
            "KVMM_SWAP_BYTES": str(SWAP_BYTES),
            "KVMM_SWAP_DRIVER": os.path.abspath(driver) if driver else "",
            "KVMM_LLAMA_PAGE_SIZE": f"{self.options.page}K",
            "KVMM_LLAMA_NAME": "demo",
        }

    def kvmm(self):
        log = self.path("kvmm.log")
        transcript = compare.Transcript(self.path("kvmm.jsonl"))
        with Engine(
            self.found, self.options, log, plugin=self.plugin, environment=self.plugin_environment()
        ) as engine:
            self.result["start_s_kvmm"] = round(engine.start_s, 3)
            self.control = Control(engine.pid)
            self.sessions = engine.ask("planes", slots=self.options.chats)["sessions"]
            talk = Conversation(engine, self.options, transcript)
            with sampler.Sampler(engine.pid, self.ranges(), self.swap_path) as samples:
                self.play(engine, talk, samples)
                self.count(engine, talk)
                self.damage(talk, engine)
            if samples.error:
                raise RunError(f"the memory could not be sampled: {samples.error}")
            transcript.close()
            self.result["dram_bytes_max"] = samples.maximum
            self.extra |= {"samples": samples.samples, "dram_bytes_mapped": samples.mapped}
            self.extra["dram_bytes_cached"] = samples.cached
            self.result["overcommit"] = round(
                self.result["kv_bytes_touched"] / self.result["dram_bytes_max"], 3
            )
            self.pagemap = self.read_pagemap(engine.pid)
            if self.options.keep:
                self.serve(engine, talk)
            # Of the whole runtime and of all that was done with it, the controls too.
            self.result["wrong_pages"] = self.control.counter("wrong_pages")
            self.control.close()
            engine.quit()

    def ranges(self):
        """Where KV and frames are, as the runtime itself says."""
        paths = [f"arenas/{arena}/ranges" for arena in self.control.names("arenas")]
        paths += [f"tiers/{tier}/ranges" for tier in self.control.names("tiers")]
        ranges = []
        for path in paths:
            ranges += sampler.parse_ranges(self.control.text(path))
        if not ranges:
            raise RunError("the runtime reports no memory ranges")
        return ranges

    def swapped(self, chat):
        return self.control.number(f"sessions/{self.sessions[chat]}/bytes_swapped")

    def evict(self, chat):
        self.control.evict(self.sessions[chat])
        self.outs[chat] += 1

    def play(self, engine, talk, samples):
        """Main turns and timing turns; between its turns a chat is fully out."""
        self.outs = [0] * self.options.chats
        self.backs = [0] * self.options.chats
        times = {"resumed": [], "resident": []}
        resumed_bytes = []
        steps = self.schedule.main + self.schedule.timing
        for done, (phase, chat) in enumerate(steps, 1):
            away = self.swapped(chat)
            before = self.control.statistics(self.sessions[chat])["swap_in_bytes"]
            reply = talk.turn(chat)
            samples.sample()
            read = self.control.statistics(self.sessions[chat])["swap_in_bytes"] - before
            left = self.swapped(chat)
            if talk.chats[chat].turns > 1 and phase != "resident":
                if away == 0 or read < away or left > 0:
                    raise RunError(
                        f"chat {chat} came back in part only: {away} bytes were out, its turn read "
                        f"{read}, and {left} are out still"
                    )
                self.backs[chat] += 1
                resumed_bytes.append(read)
            if phase in times:
                times[phase].append(reply["first_token_ms"])
            self.show("kvmm", done, len(steps), chat, reply)
            if done == len(self.schedule.main):
                self.result["rss_mib_kvmm"] = round(sampler.rss_mib(engine.pid), 1)
            if phase != "resumed":  # the resident turn comes right behind it
                self.evict(chat)
        self.result["first_token_ms_resumed"] = round(statistics.median(times["resumed"]), 1)
        self.result["first_token_ms_resident"] = round(statistics.median(times["resident"]), 1)
        self.result["resume_bytes"] = round(statistics.mean(resumed_bytes))
        self.extra["round_trips"] = min(map(min, zip(self.outs, self.backs)))
        total = self.totals()
        self.result["swap_in_bytes"] = total["swap_in_bytes"]
        self.result["swap_out_bytes"] = total["swap_out_bytes"]
        self.result["plain_disk_GBps"] = round(sampler.plain_read_gbps(self.swap_path), 3)

    def totals(self):
        """Counters over all chats."""
        every = [self.control.statistics(number) for number in self.sessions]
        names = ("swap_in_bytes", "swap_out_bytes")
        return {name: sum(one[name] for one in every) for name in names}

    def count(self, engine, talk):
        """What the chats hold that is not zero, read through the engine's own addresses."""
        total = 0
        for chat, state in enumerate(talk.chats):
            self.progress.now(f"counting the KV of chat {chat}")
            total += engine.ask("count", slot=chat, tokens=state.length)["bytes"]
            self.control.evict(self.sessions[chat])
        self.result["kv_bytes_touched"] = total

    # ---- 4: controls

    def damage(self, talk, engine):
        """Page 0 of one tensor zeroed for one chat, exchanged between two others; a turn each."""
        zeroed, (first, second) = self.schedule.zeroed, self.schedule.exchanged
        self.progress.step(f"damaging {CONTROL_PLANE} of chats {zeroed}, {first} and {second}")
        if not engine.ask("zero", plane=CONTROL_PLANE, slot=zeroed, page=0)["changed"]:
            raise RunError("the page to be zeroed was zero before")
        talk.turn(zeroed)
        if not engine.ask("swap", plane=CONTROL_PLANE, slots=[first, second], page=0)["changed"]:
            raise RunError("the pages to be exchanged were the same")
        talk.turn(first)
        talk.turn(second)

    def corrupt_slot(self):
        """A changed byte on disk: SIGBUS, one wrong page counted; without the change, the page itself."""
        path = os.path.join(os.path.abspath(self.options.swap), "corrupt.swap")
        ends = {}
        for mode in ("intact", "report", "die"):
            if os.path.exists(path):
                os.remove(path)
            done = subprocess.run(
                [self.tool("kvmm-corrupt-slot"), mode, path],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
            )
            ends[mode] = done.returncode
            self.extra[f"corrupt_{mode}"] = (done.stdout + done.stderr).strip()
        if os.path.exists(path):
            os.remove(path)
        self.result["corrupt_slot_caught"] = ends == {
            "intact": 0,
            "report": 0,
            "die": -signal.SIGBUS,
        }
        self.extra["corrupt_ends"] = ends

    # ---- what came of it

    def read_pagemap(self, pid):
        """One chat's page map as kvctl draws it."""
        done = subprocess.run(
            [self.tool("kvctl"), "-p", str(pid), "pagemap", str(self.sessions[0])],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout if done.returncode == 0 else f"kvctl pagemap: {done.stderr.strip()}\n"

    def serve(self, engine, talk):
        """For people with a second terminal."""
        self.progress.step(f"serving until Ctrl-C; try: {self.tool('kvctl')} top")
        try:
            while max(chat.length for chat in talk.chats) < self.options.lane_tokens - 512:
                for chat in range(self.options.chats):
                    self.show("keep", chat + 1, self.options.chats, chat, talk.turn(chat))
                    self.control.evict(self.sessions[chat])
            self.progress.step("the slots are full; idle until Ctrl-C")
            signal.pause()
        except KeyboardInterrupt:
            self.progress.clear()

    def run(self):
        begin = time.monotonic()
        self.prepare()
        ready = time.monotonic()
        self.progress.step("stock engine, all chats")
        reference = self.stock("stock", self.schedule.steps, measure=True)
        self.progress.step("stock engine again, two chats")
        few = [(phase, chat) for phase, chat in self.schedule.main if chat < 2]
        again = self.stock("again", few, measure=False)
        self.progress.step(f"the same chats on kvmm, {self.options.dram} MiB of DRAM")
        self.kvmm()
        self.progress.step("changing a byte on disk")
        self.corrupt_slot()
        mine = compare.load(self.path("kvmm.jsonl"))
        self.extra["problems"] = verdict.judge(
            self.options, self.schedule, self.result, self.extra, mine, reference, again
        )
        self.extra["prepare_s"] = round(ready - begin, 1)
        self.extra["run_s"] = round(time.monotonic() - ready, 1)
        report.write_result(self.path("result.json"), self.result)
        with open(self.path("details.json"), "w", encoding="ascii") as file:
            json.dump(self.extra, file, indent=2)
        return self.extra["problems"]


def on_signal(number, _frame):
    raise KeyboardInterrupt(signal.Signals(number).name)


def main():
    options = arguments()
    progress = report.Progress()
    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGHUP, on_signal)
    demo = Demo(options, progress)
    try:
        problems = demo.run()
    except host.CannotRunHere as error:
        progress.clear()
        print(error, file=sys.stderr)
        return host.CANNOT_RUN_HERE
    except KeyboardInterrupt:
        progress.step("stopped; nothing is left running")
        return 130
    except (RunError, ControlError, fetch.FetchError, RuntimeError, OSError) as error:
        progress.clear()
        print(f"tools/demo: {error}", file=sys.stderr)
        return 1
    progress.clear()
    if options.json:
        with open(demo.path("result.json"), encoding="ascii") as file:
            print(file.read(), end="")
    else:
        print(
            f"\nThe page map of chat 0\n{demo.pagemap}\n{report.table(demo.result, demo.extra)}\n"
        )
    for problem in problems:
        print(f"tools/demo: {problem}", file=sys.stderr)
    print(
        f"{'FAILED' if problems else 'everything as promised'}: {demo.path('result.json')}",
        file=sys.stderr,
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
