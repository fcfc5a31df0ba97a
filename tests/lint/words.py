#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The tree speaks of itself: it names no folder outside it, nobody's machine and no registry's host.

A path that exists on one machine only, or a download host that one network reaches, makes a build that
works for one person. (Patterns have a character class in them, so that this file passes itself.)
"""

import re

import lintlib
from lintlib import Violation

FORBIDDEN = (
    (re.compile(r"\.\./sh[a]red\b"), "a folder outside the tree"),
    (re.compile(r"(?<![\w.}])/w[o]rk/(?!\*)"), "a path of somebody's machine"),
    (re.compile(r"(?<![\w.}])/h[o]me/(?!\.\.\.|\$|<)\w+"), "a path of somebody's machine"),
    (re.compile(r"(?<![\w.}])/r[o]ot/\.?\w"), "a path of somebody's machine"),
    (re.compile(r"\b(?:files\.pythonh[o]sted\.org|deb\.debi[a]n\.org|pyp[i]\.org)\b"), "a registry's host"),
    (re.compile(r"\bT[O]DO\b|\bFIX[M]E\b|\bX[X]X\b(?!H)"), "unfinished: do it, or file an issue"),
)
TEXT = lintlib.CPP + (".py", ".sh", ".cmake", ".txt", ".md", ".json", ".in", ".conf", ".yml")


def check(root):
    violations = []
    for path in lintlib.files(root):
        if not path.endswith(TEXT) and not lintlib.is_script(root, path):
            continue
        text = lintlib.read(root, path)
        for pattern, why in FORBIDDEN:
            for line, m in lintlib.matches(text, pattern):
                violations.append(Violation(path, line, f"'{m.group(0)}': {why}"))
    return violations


if __name__ == "__main__":
    lintlib.main(check, "words that do not belong here")
