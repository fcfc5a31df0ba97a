#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Transcripts of what an engine put out, and their comparison bit for bit.

A transcript is one line of JSON per generated token:
    {"chat": 0, "turn": 1, "index": 5, "id": 236, "logprob": -0.25, "top": [[236, -0.25], ...]}
Numbers are written so that they read back as the same double; two are equal if their 64 bits are.
"""

import json
import struct
import sys


# Of every token that many alternatives are compared besides its own log-probability.
ALTERNATIVES_LEAST = 5


class Transcript:
    """Writes one; every turn is on disk before the next begins. A token with too few alternatives is refused:
    a comparison of less than was promised must not pass."""

    def __init__(self, path):
        self.file = open(path, "w", encoding="ascii")

    def add(self, chat, turn, ids, logprobs):
        for index, (token, (logprob, *top)) in enumerate(zip(ids, logprobs, strict=True)):
            if len(top) < ALTERNATIVES_LEAST:
                raise ValueError(
                    f"chat {chat}, turn {turn}, token {index}: the engine gave {len(top)} alternatives, "
                    f"at least {ALTERNATIVES_LEAST} are compared"
                )
            line = {"chat": chat, "turn": turn, "index": index, "id": token}
            self.file.write(json.dumps(line | {"logprob": logprob, "top": top}) + "\n")
        self.file.flush()

    def close(self):
        self.file.close()


def load(path):
    """{(chat, turn, index): line}. A position twice is an error: a comparison could pass by accident."""
    lines = {}
    with open(path, encoding="ascii") as file:
        for text in file:
            line = json.loads(text)
            key = (line["chat"], line["turn"], line["index"])
            if key in lines:
                raise ValueError(f"{path}: token {key} stands there twice")
            lines[key] = line
    return lines


def bits(value):
    return None if value is None else struct.pack("<d", value)


def exact(line):
    """What has to be equal: the token, its log-probability, the alternatives in order with theirs."""
    return bits(line["logprob"]), [(token, bits(logprob)) for token, logprob in line["top"]]


class Comparison:
    """What came out. `tokens_identical` and `logprobs_identical` are False if nothing was compared."""

    def __init__(self):
        self.tokens = 0
        self.logprobs = 0
        self.tokens_identical = True
        self.logprobs_identical = True
        self.first_difference = None

    @property
    def identical(self):
        return self.tokens_identical and self.logprobs_identical

    def differ(self, what, key, left, right):
        if self.first_difference is None:
            chat, turn, index = key
            self.first_difference = (
                f"chat {chat}, turn {turn}, token {index}: {what} is {left!r} against {right!r}"
            )


def compare(left, right, select=lambda chat, turn: True):
    """Compares two loaded transcripts at the turns that `select` names."""
    result = Comparison()
    keys = sorted(key for key in left.keys() | right.keys() if select(key[0], key[1]))
    for key in keys:
        a, b = left.get(key), right.get(key)
        if a is None or b is None:
            result.tokens_identical = result.logprobs_identical = False
            result.differ("the token", key, a and a["id"], b and b["id"])
            continue
        result.tokens += 1
        result.logprobs += 1 + len(a["top"])
        if a["id"] != b["id"]:
            result.tokens_identical = False
            result.differ("the token", key, a["id"], b["id"])
        if exact(a) != exact(b):
            result.logprobs_identical = False
            result.differ(
                "the log-probability",
                key,
                [a["logprob"], *a["top"]],
                [b["logprob"], *b["top"]],
            )
    if result.tokens == 0:
        result.tokens_identical = result.logprobs_identical = False
    return result


def main():
    if len(sys.argv) != 3:
        print("usage: compare.py TRANSCRIPT TRANSCRIPT", file=sys.stderr)
        return 2
    result = compare(load(sys.argv[1]), load(sys.argv[2]))
    print(
        f"{result.tokens} tokens, {result.logprobs} log-probabilities: "
        + ("identical" if result.identical else f"different, first at {result.first_difference}")
    )
    return 0 if result.identical else 1


if __name__ == "__main__":
    sys.exit(main())
