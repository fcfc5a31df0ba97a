#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A header that nobody includes but the .cc file of its own name is dead, and so is that file.

Public headers live for others; and a .cc file needs nobody, because CMake builds all of a folder.
"""

import os

import layering
import lintlib
from lintlib import Violation

PUBLIC = "runtime/include/"


def check(root):
    known = set(lintlib.files(root))
    used = set()
    for path in known:
        if not path.endswith(lintlib.CPP):
            continue
        text = lintlib.code(lintlib.read(root, path), strings=True)
        for _, m in lintlib.matches(text, layering.INCLUDE):
            target = layering.resolve(m.group("name"), known)
            if target and os.path.splitext(target)[0] != os.path.splitext(path)[0]:
                used.add(target)
    # A file that CMake or a script names (a template, a project of its own) is used by them.
    named = "\n".join(lintlib.read(root, p) for p in known if p.endswith(("CMakeLists.txt", ".sh")))
    return [
        Violation(path, 0, "no file includes this header")
        for path in sorted(known - used)
        if path.endswith(lintlib.HEADERS)
        and not path.startswith(PUBLIC)
        and os.path.basename(path) not in named
    ]


if __name__ == "__main__":
    lintlib.main(check, "dead headers")
