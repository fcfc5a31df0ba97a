#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Adds up what ctest reported over all configurations, and judges what was skipped.

  count_tests.py [--strict] [--may-skip FILE] CONFIGURATION=junit.xml ... [--step NAME=passed|failed ...]

Prints what failed, what was skipped, and last, alone on its line, `N passed, N failed, N skipped`. A step is
something that is not ctest's (a build that failed, clang-tidy) and counts as one test. With --strict (CI) a
skipped test that the list does not name has failed: a machine that lacks what a test needs tells nothing.
Exit status: 0 if nothing failed and something passed.
"""

import argparse
import fnmatch
import sys
import xml.etree.ElementTree


def may_skip(path):
    """Patterns of a list: one a line, a reason after '#'."""
    if not path:
        return []
    with open(path, encoding="utf-8") as f:
        return [line.split("#")[0].strip() for line in f if line.split("#")[0].strip()]


def cases(path):
    """(name, "passed" | "failed" | "skipped", why) of a JUnit file that ctest wrote."""
    for case in xml.etree.ElementTree.parse(path).getroot().iter("testcase"):
        skipped = case.find("skipped")
        reason = "" if skipped is None else skipped.get("message") or ""
        if case.find("failure") is not None or case.get("status") == "fail":
            yield case.get("name"), "failed", ""
        elif case.get("status") == "run":
            yield case.get("name"), "passed", ""
        elif case.get("status") == "disabled":
            yield case.get("name"), "skipped", "disabled"
        elif reason.startswith("SKIP_"):  # its output or its exit status said so
            yield case.get("name"), "skipped", why_of(case)
        else:  # its program is missing, or a fixture of it failed
            yield case.get("name"), "failed", f"not run: {reason}"


def why_of(case):
    """The line of a skipped GoogleTest case that says why; or the last line of another test."""
    lines = [x.strip() for x in (case.findtext("system-out") or "").splitlines() if x.strip()]
    for i, line in enumerate(lines[:-1]):
        if line.endswith(": Skipped"):
            return lines[i + 1]
    return lines[-1] if lines else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reports", nargs="*", metavar="CONFIGURATION=FILE")
    parser.add_argument("--step", action="append", default=[], metavar="NAME=RESULT")
    parser.add_argument("--may-skip", metavar="FILE")
    parser.add_argument("--strict", action="store_true")
    args = parser.parse_args()

    found = []
    for step in args.step:
        name, _, result = step.rpartition("=")
        found.append((name, result, ""))
    for report in args.reports:
        configuration, _, path = report.partition("=")
        try:
            found += [(f"{configuration}: {n}", r, why) for n, r, why in cases(path)]
        except (OSError, xml.etree.ElementTree.ParseError) as e:
            found.append((f"{configuration}: report", "failed", str(e)))

    patterns = may_skip(args.may_skip)
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for name, result, why in found:
        plain = name.split(": ", 1)[-1]
        excused = any(fnmatch.fnmatchcase(plain, p) for p in patterns)
        if result == "skipped" and args.strict and not excused:
            result, why = "failed", f"skipped, and not on the list of what may be: {why}"
        counts[result] += 1
        if result != "passed":
            print(f"{result}: {name}" + (f" ({why})" if why else ""))
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts))
    return 0 if counts["failed"] == 0 and counts["passed"] > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
