#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""No document points to what is not there: a file, a heading, or a path named in the code.

  [text](path)          of a file or folder of the tree, from the document's own folder
  [text](path#heading)  also the heading, as GitHub names it
  `docs/x.md`           a document named in a document or in a source file's text, from the root

Links to the web are not followed: a lint needs no network.
"""

import os
import re

import lintlib
from lintlib import Violation

LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\((?P<target>[^()\s]+)(?:\s+\"[^\"]*\")?\)")
NAMED = re.compile(r"(?<![\w/.-])(?P<target>docs/[\w./-]*\w\.md)\b")
WEB = re.compile(r"[a-z][a-z0-9+.-]*:")
FENCE = re.compile(r"^( {0,3}|\t)?(```|~~~).*?^\s*\2[^\n]*$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`[^`\n]+`")
HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)


def blank(m):
    return re.sub(r"[^\n]", " ", m.group(0))


def prose(text):
    """Without code blocks and code in lines; line numbers stay."""
    return INLINE.sub(blank, FENCE.sub(blank, text))


def anchors(text):
    """Names of the headings: lower case, without punctuation, blanks as dashes, doubles numbered."""
    found = {}
    names = set()
    for heading in HEADING.findall(FENCE.sub(blank, text)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.replace("`", ""))
        name = re.sub(r"[^\w\- ]", "", words.lower()).strip().replace(" ", "-")
        again = found.get(name, 0)
        found[name] = again + 1
        names.add(f"{name}-{again}" if again else name)
    return names


def check_links(root, path, known, folders):
    text = lintlib.read(root, path)
    for line, m in lintlib.matches(prose(text), LINK):
        target, _, heading = m.group("target").partition("#")
        if WEB.match(target):
            continue
        there = os.path.normpath(os.path.join(os.path.dirname(path), target)) if target else path
        if there not in known and there not in folders:
            yield Violation(path, line, f"'{m.group('target')}' is not in the tree")
        elif heading and heading not in anchors(lintlib.read(root, there) if there in known else ""):
            yield Violation(path, line, f"'{there}' has no heading '{heading}'")


def check(root):
    known = set(lintlib.files(root))
    folders = {"."}
    for path in known:
        while os.path.dirname(path):
            path = os.path.dirname(path)
            folders.add(path)
    violations = []
    for path in sorted(known):
        if path.endswith(".md"):
            violations += check_links(root, path, known, folders)
        if not path.endswith(lintlib.CPP + (".md", ".py", ".txt", ".cmake")) or path.startswith("tests/lint/"):
            continue
        for line, m in lintlib.matches(lintlib.read(root, path), NAMED):
            if m.group("target") not in known:
                violations.append(Violation(path, line, f"there is no {m.group('target')}"))
    return violations


if __name__ == "__main__":
    lintlib.main(check, "dead links")
