#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""No source file is longer than can be read in one sitting."""

import lintlib
from lintlib import Violation

LINES_MAX = 500
ENDINGS = lintlib.CPP + (".py", ".sh", ".cmake")
# Path -> why it may be longer. Empty, and better so.
ALLOWED = {}


def check(root):
    violations = []
    for path in lintlib.files(root):
        if path in ALLOWED:
            continue
        if path.endswith(ENDINGS) or path.endswith("CMakeLists.txt") or lintlib.is_script(root, path):
            lines = lintlib.read(root, path).count("\n")
            if lines > LINES_MAX:
                violations.append(Violation(path, 0, f"{lines} lines; {LINES_MAX} at most: split it"))
    return violations


if __name__ == "__main__":
    lintlib.main(check, "files that are too long")
