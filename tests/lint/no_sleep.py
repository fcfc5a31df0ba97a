#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""No test sleeps: it steps, waits for a descriptor, or joins.

A sleep makes a test slow where the machine is fast and false where the machine is slow.
"""

import re

import lintlib
from lintlib import Violation

CPP_SLEEP = re.compile(
    r"\b(?:std::this_thread::)?sleep_(?:for|until)\b|\b(?:usleep|nanosleep|clock_nanosleep)\s*\("
    r"|(?<![\w.>])sleep\s*\("
)
# `poll` without descriptors, `select` likewise: a sleep by another name.
CPP_EMPTY_POLL = re.compile(r"\bpoll\s*\(\s*(?:nullptr|NULL|0)\s*,\s*0\b|\bselect\s*\(\s*0\s*,")
PYTHON_SLEEP = re.compile(r"\b(?:time|asyncio)\.sleep\s*\(|^\s*from time import .*\bsleep\b", re.M)
SHELL_SLEEP = re.compile(r"(?:^|[;&|(]|\bdo\b|\bthen\b)\s*sleep\s+[\d$]", re.M)


def check(root):
    violations = []
    for path in lintlib.files(root):
        if not path.startswith("tests/"):
            continue
        text = lintlib.read(root, path)
        if path.endswith(lintlib.CPP):
            found = [*lintlib.matches(lintlib.code(text), CPP_SLEEP)]
            found += lintlib.matches(lintlib.code(text), CPP_EMPTY_POLL)
        elif path.endswith(".py"):
            found = lintlib.matches(text, PYTHON_SLEEP)
        elif path.endswith((".sh", ".cmake", "CMakeLists.txt")) or lintlib.is_script(root, path):
            found = lintlib.matches(text, SHELL_SLEEP)
        else:
            continue
        violations += [Violation(path, n, f"a test sleeps: {m.group(0).strip()}") for n, m in found]
    return violations


if __name__ == "__main__":
    lintlib.main(check, "sleeping tests")
