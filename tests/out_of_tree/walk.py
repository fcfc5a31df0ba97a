#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Walks docs/writing_a_driver.md: runs its `sh` lines as they stand, in order, in a folder of their own, and
holds each of its `cpp`, `cmake` and `c` passages against the example's files.

usage: walk.py SOURCE BUILD WORK_FOLDER

The lines speak of $KVMM (the source) and $BUILD (a build of it); the walk sets both.
"""

import os
import re
import shutil
import subprocess
import sys

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLE = "tests/out_of_tree/project/thread_file"
SKIPPED = 77


def passages(document):
    with open(document, encoding="ascii") as file:
        return FENCE.findall(file.read())


def example_text(source):
    folder = os.path.join(source, EXAMPLE)
    text = ""
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), encoding="ascii") as file:
            text += file.read()
    return text


def squeezed(text):
    """Without indentation and empty lines: a passage of a class stands further left in the document."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def main():
    source, build, work = map(os.path.abspath, sys.argv[1:])
    found = passages(os.path.join(source, "docs", "writing_a_driver.md"))
    example = squeezed(example_text(source))
    for kind, text in found:
        if kind != "sh" and squeezed(text) not in example:
            sys.exit(f"not in {EXAMPLE}:\n{text}")
    lines = [text for kind, text in found if kind == "sh"]
    if len(lines) < 3 or len(found) == len(lines):
        sys.exit("the document has no walk in it")
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    environment = dict(os.environ, KVMM=source, BUILD=build)
    if os.environ.get("SANITIZE"):
        flags = "-fsanitize=" + os.environ["SANITIZE"]
        environment |= {"CXXFLAGS": flags, "CFLAGS": flags}
    for text in lines:
        print(text, flush=True)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text], cwd=work, env=environment, check=False, timeout=200
        )
        if done.returncode:
            sys.exit(SKIPPED if done.returncode == SKIPPED else f"exit status {done.returncode}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
