#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every source file and script says its licence in its first lines."""

import os

import lintlib
from lintlib import Violation

LINE = "SPDX-License-Identifier: Apache-2.0"
FIRST_LINES = 4
ENDINGS = lintlib.CPP + (".py", ".sh", ".cmake", ".in", ".yml")
NAMES = ("CMakeLists.txt",)


def check(root):
    violations = []
    for path in lintlib.files(root):
        name = os.path.basename(path)
        if name in NAMES or path.endswith(ENDINGS) or lintlib.is_script(root, path):
            if not any(LINE in line for line in lintlib.read(root, path).splitlines()[:FIRST_LINES]):
                violations.append(Violation(path, 1, f"no '{LINE}' in its first lines"))
    return violations


if __name__ == "__main__":
    lintlib.main(check, "files without a licence line")
