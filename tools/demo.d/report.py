# SPDX-License-Identifier: Apache-2.0
"""What the demo says: live progress, the table at the end, result.json."""

import json
import os
import shutil
import sys
import time

FIELDS = (
    "tokens_identical",
    "logprobs_identical",
    "negative_control_caught",
    "corrupt_slot_caught",
    "sessions",
    "kv_bytes_touched",
    "dram_bytes_max",
    "overcommit",
    "start_s_stock",
    "start_s_kvmm",
    "rss_mib_stock",
    "rss_mib_kvmm",
    "first_token_ms_resident",
    "first_token_ms_resumed",
    "first_token_ms_prefill",
    "resume_bytes",
    "plain_disk_GBps",
    "swap_in_bytes",
    "swap_out_bytes",
    "wrong_pages",
    "engine",
    "model",
)


class Progress:
    """One line that is rewritten on a terminal; plain lines, fewer of them, everywhere else."""

    def __init__(self, stream=sys.stderr):
        self.stream = stream
        self.live = stream.isatty()
        self.begin = time.monotonic()
        self.open_line = False

    def stamp(self):
        seconds = int(time.monotonic() - self.begin)
        return f"[{seconds // 60:2}:{seconds % 60:02}] "

    def step(self, text):
        """A thing that has begun or is done; stays on the screen."""
        self.clear()
        print(self.stamp() + text, file=self.stream, flush=True)

    def now(self, text):
        """Where it stands; the next line takes its place."""
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            self.stream.write("\r\x1b[K" + (self.stamp() + text)[:width])
            self.stream.flush()
            self.open_line = True

    def clear(self):
        if self.open_line:
            self.stream.write("\r\x1b[K")
            self.open_line = False


def write_result(path, result):
    """Exactly the fields above, whole or not at all."""
    if set(result) != set(FIELDS):
        raise ValueError(f"fields differ: {sorted(set(result) ^ set(FIELDS))}")
    with open(path + ".new", "w", encoding="ascii") as file:
        json.dump({field: result[field] for field in FIELDS}, file, indent=2)
        file.write("\n")
    os.replace(path + ".new", path)


def mib(count):
    return f"{count / (1 << 20):.1f} MiB"


def yes(value):
    return "yes" if value else "NO"


def table(result, extra):
    """The rows that people see. `extra`: what is not in result.json."""
    rows = [
        ("every token the same as stock", yes(result["tokens_identical"])),
        ("every log-probability the same, bit for bit", yes(result["logprobs_identical"])),
        ("  compared", f"{extra['tokens']} tokens, {extra['logprobs']} log-probabilities"),
        ("a second stock run the same as the first", yes(extra["stock_repeats"])),
        ("damaged KV is noticed by the comparison", yes(result["negative_control_caught"])),
        ("a page changed on disk ends in SIGBUS", yes(result["corrupt_slot_caught"])),
        ("wrong pages served", str(result["wrong_pages"])),
        ("chats", str(result["sessions"])),
        ("KV they wrote", mib(result["kv_bytes_touched"])),
        ("DRAM it ever took", mib(result["dram_bytes_max"])),
        ("over-commit", f"{result['overcommit']:.2f}"),
        ("fully out and back, least of all chats", f"{extra['round_trips']} times"),
        ("swapped out / in", f"{mib(result['swap_out_bytes'])} / {mib(result['swap_in_bytes'])}"),
        (
            "start, stock / kvmm",
            f"{result['start_s_stock']:.2f} s / {result['start_s_kvmm']:.2f} s",
        ),
        (
            "resident set, stock / kvmm",
            f"{result['rss_mib_stock']:.0f} MiB / {result['rss_mib_kvmm']:.0f} MiB",
        ),
        ("first token, chat in DRAM", f"{result['first_token_ms_resident']:.0f} ms"),
        (
            "first token, chat on disk",
            f"{result['first_token_ms_resumed']:.0f} ms ({mib(result['resume_bytes'])} read)",
        ),
        ("first token, chat computed again", f"{result['first_token_ms_prefill']:.0f} ms"),
        ("the disk by itself (O_DIRECT)", f"{result['plain_disk_GBps']:.2f} GB/s"),
        ("engine, model", f"{result['engine']}, {result['model']}"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)
