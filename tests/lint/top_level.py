#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The top level has exactly the entries that the README's map shows, and dot files."""

import lintlib
from lintlib import Violation

ENTRIES = {
    "CMakeLists.txt", "CMakePresets.json", "runtime", "drivers", "vmm", "tiers", "sched", "tools",
    "tests", "docs", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md",
}  # fmt: skip


def check(root):
    there = {p.split("/")[0] for p in lintlib.files(root, tracked_only=True)}
    there = {e for e in there if not e.startswith(".")}
    extra = [Violation(e, 0, "does not belong at the top level") for e in sorted(there - ENTRIES)]
    missing = [Violation(e, 0, "is missing at the top level") for e in sorted(ENTRIES - there)]
    return extra + missing


if __name__ == "__main__":
    lintlib.main(check, "wrong entries at the top level")
