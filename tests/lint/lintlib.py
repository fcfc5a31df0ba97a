# SPDX-License-Identifier: Apache-2.0
"""What the lints share: which files the tree has, C++ without its comments, and the report.

A lint is a module with `check(root) -> list[Violation]`. It is run as a script with the root of the
tree, prints one `path:line: text` a violation, and exits 1 if there is any.
"""

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass

CPP = (".h", ".hpp", ".cc", ".c")
HEADERS = (".h", ".hpp")


@dataclass(frozen=True)
class Violation:
    path: str
    line: int  # 0: the whole file
    text: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.text}" if self.line else f"{self.path}: {self.text}"


def files(root, tracked_only=False):
    """Paths relative to `root`, sorted: what git tracks, and what it would track if added.

    Without git (a source archive, a planted tree) every file that is not under build/ or .git/.
    """
    if os.path.exists(os.path.join(root, ".git")):
        command = ["git", "-C", root, "ls-files", "-z", "--cached"]
        if not tracked_only:
            command += ["--others", "--exclude-standard"]
        out = subprocess.run(command, check=True, capture_output=True).stdout.decode()
        found = {p for p in out.split("\0") if p}
        return sorted(p for p in found if os.path.isfile(os.path.join(root, p)))
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if f not in (".git", "build", "__pycache__")]
        found += [os.path.relpath(os.path.join(folder, n), root) for n in names]
    return sorted(found)


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as f:
        return f.read()


def is_script(root, path):
    """A file with an interpreter line: `tools/test`, for one."""
    if os.path.splitext(path)[1] not in ("", ".sh", ".py"):
        return False
    with open(os.path.join(root, path), "rb") as f:
        return f.read(2) == b"#!"


_TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)"""
    r"""|(?P<raw>R"(?P<d>[^()\s\\]{0,16})\(.*?\)(?P=d)")"""
    r"""|(?P<string>"(?:\\.|[^"\\\n])*")"""
    r"""|(?P<number>\d[\d']*)"""
    r"""|(?P<char>'(?:\\.|[^'\\\n])+')""",
    re.DOTALL | re.VERBOSE,
)


def code(text, strings=False):
    """C++ with comments blanked out, and the content of strings too unless `strings`.

    Line numbers stay as they are.
    """

    def blank(m):
        found = m.group(0)
        if m.group("comment") or (not strings and (m.group("string") or m.group("raw"))):
            return re.sub(r"[^\n]", " ", found)
        return found

    return _TOKEN.sub(blank, text)


def matches(text, pattern):
    """(line number, match) of every match of a compiled pattern in `text`."""
    for m in pattern.finditer(text):
        yield text.count("\n", 0, m.start()) + 1, m


def main(check, what):
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("root", nargs="?", default=".", help="root of the source tree")
    violations = check(parser.parse_args().root)
    for v in violations:
        print(v)
    print(f"{what}: {len(violations)} found")
    sys.exit(1 if violations else 0)
