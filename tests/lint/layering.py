#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Includes go down only, and what needs a thread, a clock or a device's name stays where it belongs.

The layers are data: layers.txt beside this file. Besides the includes it holds three rules:

  below runtime/   no threads, no clocks, no sleeping, no environment, no random devices
  vmm tiers sched  no concrete driver is named, no floating point (decisions must be reproducible)
  tools/           speak only the public API and the attribute tree
"""

import os
import re

import lintlib
from lintlib import Violation

TABLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "layers.txt")

# Steppable: run on a virtual clock in one thread.
STEPPED = ("drivers", "vmm", "tiers", "sched")
# Know devices by their op tables only.
BLIND = ("vmm", "tiers", "sched")

FORBIDDEN_HEADERS = {
    "thread": "starts threads", "mutex": "is for runtime/base/lock.h", "shared_mutex": "is a lock",
    "condition_variable": "waits", "future": "starts threads", "semaphore": "waits",
    "barrier": "waits", "latch": "waits", "stop_token": "is for threads", "pthread.h": "is for threads",
    "chrono": "reads a clock", "ctime": "reads a clock", "time.h": "reads a clock",
    "sys/time.h": "reads a clock", "random": "differs between libraries: runtime/base/random.h",
}  # fmt: skip
FORBIDDEN_CALLS = re.compile(
    r"\b(getenv|secure_getenv|setenv|clock_gettime|gettimeofday|clock_nanosleep|nanosleep|usleep"
    r"|pthread_create|sleep_for|sleep_until|getrandom|arc4random\w*)\s*\("
    r"|(?<![\w.>:])(sleep|rand|srand|time)\s*\("
)
# lock.h is where the standard's locks enter, and an attribute's remover asks whether it is the thread
# inside (thread ids only); everything else in the leaf library is as strict as the layers above it.
BASE_ALLOWED = {
    "runtime/base/lock.h": {"mutex", "condition_variable"},
    "runtime/base/attr_state.h": {"thread"},
}

DRIVER_NAMES = ("host", "cuda", "uring", "null", "error", "delay", "sim")
DEVICE_WORDS = re.compile(
    r'"(?:host|cuda|uring|null|error|delay|sim)"'
    r"|\b(?:io_uring\w*|userfaultfd|UFFD\w+|libcuda\w*|cu(?:Mem|Ctx|Device|Event|Stream)[A-Z]\w*)\b"
    r"|\b(?:Host|Cuda|Uring|Null|Error|Delay|Sim)(?:Driver|Device|Mmu|Block|Data|Copy)\w*\b"
)
FLOATING = re.compile(r"\b(float|double|long double)\b")

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?P<open>[<"])(?P<name>[^>"]+)[>"]', re.MULTILINE)


def layers():
    """[(name, folder, layers it may include)], the deepest folder first."""
    table = []
    with open(TABLE, encoding="utf-8") as f:
        for line in f:
            words = line.split("#")[0].split()
            if words:
                table.append((words[0], words[1], {w for w in words[2:] if w != "-"} | {words[0]}))
    return sorted(table, key=lambda layer: -len(layer[1]))


def layer_of(path, table):
    for name, folder, allowed in table:
        # A row names a folder, or a header with its .cc beside it: runtime/control/protocol.
        if path.startswith(folder + "/") or os.path.splitext(path)[0] == folder:
            return name, allowed
    return None, set()


def resolve(name, known):
    """The file of the tree that an include names, or None (third-party, system)."""
    if name in known:
        return name
    public = "runtime/include/" + name
    return public if public in known else None


def check_includes(path, text, known, table):
    layer, allowed = layer_of(path, table)
    tops = {folder.split("/")[0] for _, folder, _ in table}
    for line, m in lintlib.matches(lintlib.code(text, strings=True), INCLUDE):
        name = m.group("name")
        target = resolve(name, known)
        if target is None:
            beside = os.path.normpath(os.path.join(os.path.dirname(path), name))
            if beside in known:
                yield Violation(path, line, f'include it from the root: "{beside}"')
            elif name.split("/")[0] in tops and m.group("open") == '"':
                yield Violation(path, line, f'there is no "{name}" in the tree')
            continue
        below, _ = layer_of(target, table)
        if below is not None and below not in allowed:
            yield Violation(path, line, f'{layer} must not include "{name}" ({below})')


def check_code(path, text, table):
    layer, _ = layer_of(path, table)
    if layer not in STEPPED and layer != "base":
        return
    # A driver may tell another driver's name: it is what it stacks on. `vmm` and up may not.
    plain = lintlib.code(text)
    with_strings = lintlib.code(text, strings=True)
    excused = BASE_ALLOWED.get(path, set())
    for line, m in lintlib.matches(with_strings, INCLUDE):
        name = m.group("name")
        if name in FORBIDDEN_HEADERS and name not in excused:
            yield Violation(path, line, f"<{name}> {FORBIDDEN_HEADERS[name]}; not below runtime/")
        if layer in BLIND and re.match(rf"drivers/(?:{'|'.join(DRIVER_NAMES)})/", name):
            yield Violation(path, line, f'"{name}" is a concrete driver')
    for line, m in lintlib.matches(plain, FORBIDDEN_CALLS):
        yield Violation(path, line, f"{m.group(0).strip()}...) is not called below runtime/")
    if layer in BLIND:
        for line, m in lintlib.matches(with_strings, DEVICE_WORDS):
            yield Violation(path, line, f"{m.group(0)} names a concrete device")
        for line, m in lintlib.matches(plain, FLOATING):
            yield Violation(path, line, f"{m.group(0)}: decisions are made in integers")


def check(root):
    table = layers()
    known = set(lintlib.files(root))
    violations = []
    for path in sorted(known):
        if not path.endswith(lintlib.CPP) or layer_of(path, table)[0] is None:
            continue
        text = lintlib.read(root, path)
        violations += check_includes(path, text, known, table)
        violations += check_code(path, text, table)
    return violations


if __name__ == "__main__":
    lintlib.main(check, "breaches of the layers")
