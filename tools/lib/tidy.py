#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""clang-tidy on what changed since it last passed.

"Changed" is said by content: a file has passed if it, every file of the tree that it includes, its compile
command, .clang-tidy and clang-tidy itself are what they were. Passed keys are kept in a folder of the cache,
so that a fresh clone with a warm cache checks a few files, and one with a cold cache checks all.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import re
import subprocess
import sys

INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"]', re.MULTILINE)


class Keys:
    def __init__(self, root, tool):
        self.root = root
        version = subprocess.run([tool, "--version"], check=True, capture_output=True).stdout
        self.base = version
        for folder in ("", "tests", "tools"):
            path = os.path.join(root, folder, ".clang-tidy")
            if os.path.isfile(path):
                with open(path, "rb") as f:
                    self.base += f.read()
        self.files = {}

    def included(self, path):
        """Files of the tree that `path` includes, itself among them."""
        todo, seen = [path], set()
        while todo:
            p = todo.pop()
            if p in seen:
                continue
            seen.add(p)
            if p not in self.files:
                with open(os.path.join(self.root, p), "rb") as f:
                    content = f.read()
                names = [m.group(1).decode() for m in INCLUDE.finditer(content)]
                places = [q for n in names for q in (n, "runtime/include/" + n)]
                inside = [q for q in places if os.path.isfile(os.path.join(self.root, q))]
                self.files[p] = (hashlib.sha256(content).digest(), inside)
            todo += self.files[p][1]
        return sorted(seen)

    def key(self, path, command):
        h = hashlib.sha256(self.base)
        h.update(command.replace(self.root, "").encode())
        for p in self.included(path):
            h.update(p.encode() + b"\0" + self.files[p][0])
        return h.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", help="build folder with compile_commands.json of a Clang preset")
    parser.add_argument("--cache", required=True, help="folder that keeps the keys of what passed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--tool", default="clang-tidy-14")
    args = parser.parse_args()

    root = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
    os.makedirs(args.cache, exist_ok=True)
    keys = Keys(root, args.tool)
    with open(os.path.join(args.build, "compile_commands.json"), encoding="utf-8") as f:
        commands = json.load(f)
    todo, total = {}, 0
    for entry in commands:
        path = os.path.relpath(os.path.join(entry["directory"], entry["file"]), root)
        if path.startswith(("build/", "..")) or not path.endswith(".cc"):
            continue
        total += 1
        key = keys.key(path, entry.get("command") or " ".join(entry["arguments"]))
        if not os.path.exists(os.path.join(args.cache, key)):
            todo[path] = key
    print(f"clang-tidy: {len(todo)} of {total} files changed since they last passed", flush=True)

    def check(path):
        command = [args.tool, "--quiet", "-p", args.build, os.path.join(root, path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    failed = 0
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for path, done in zip(todo, pool.map(check, todo)):
            if done.returncode == 0:
                with open(os.path.join(args.cache, todo[path]), "w", encoding="utf-8") as f:
                    f.write(path + "\n")
            else:
                failed += 1
                print(f"clang-tidy: {path}\n{done.stdout}{done.stderr}", flush=True)
    print(f"clang-tidy: {failed} files with findings")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
