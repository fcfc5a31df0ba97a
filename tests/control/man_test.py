#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The man pages against what they describe: man_test.py KVCTL MAN_DIR VERSION

- groff renders each page and warns of nothing;
- every command and option of `kvctl --help` stands in kvctl.1, under its command, and nothing else
  that looks like an option does;
- every page names the version.
"""
import pathlib
import re
import shutil
import subprocess
import sys


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def render(page):
    """The page as plain text, and what groff says to it."""
    _, text, warnings = run("groff", "-man", "-ww", "-Tascii", "-P-cbou", "-rLL=200n", str(page))
    return text, warnings


def options_of(kvctl, command):
    """Long and short names in the help of a command ('' is kvctl's own)."""
    code, text, _ = run(kvctl, *([command] if command else []), "--help")
    assert code == 0, command
    text = text.split("Examples:")[0]
    return set(re.findall(r"(?<![\w-])(--[a-z][a-z-]*|-[a-zA-Z])(?![\w-])", text))


def commands_of(kvctl):
    _, text, _ = run(kvctl, "--help")
    part = text.split("Subcommands:")[1].split("\n\n")[0]
    return re.findall(r"^  ([a-z]+) ", part, re.M)


def main():
    kvctl, folder, version = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
    if shutil.which("groff") is None:
        print("groff is not installed")
        return 77
    complaints = []
    texts = {}
    for page in sorted(folder.iterdir()):
        texts[page.name], warnings = render(page)
        for line in warnings.splitlines():
            complaints.append(f"{page.name}: {line}")
        if f"kvmm {version}" not in texts[page.name]:
            complaints.append(f"{page.name}: does not name version {version}")
        for cited, section in re.findall(r"\b(kvmm(?:\.conf)?|kvctl)\((\d)\)", texts[page.name]):
            if not (folder / f"{cited}.{section}").is_file():
                complaints.append(f"{page.name}: there is no {cited}({section})")
    text = texts["kvctl.1"]
    known = set()
    common = options_of(kvctl, "")
    for command in ["", *commands_of(kvctl)]:
        wanted = options_of(kvctl, command)
        known |= wanted
        where = text
        if command:
            # From the command's own paragraph to the next command's.
            start = re.search(rf"^ {{7}}{command}(?= |$)", text, re.M)
            if start is None:
                complaints.append(f"kvctl.1: no command {command}")
                continue
            rest = text[start.end():]
            end = re.search(r"^( {7}[a-z]+( |$)|\S)", rest, re.M)
            # mount and umount are described together.
            where = rest if command in ("mount", "umount") else rest[: end.start() if end else None]
            wanted -= common
        for option in sorted(wanted):
            if re.search(rf"(?<![\w-]){option}(?![\w-])", where) is None:
                complaints.append(f"kvctl.1: {command or 'kvctl'} has {option}, the page has not")
    options_part = re.sub(r"--(?:help|version)", "", text)
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", options_part)) - known:
        complaints.append(f"kvctl.1: names {option}, kvctl has no such option")
    for complaint in complaints:
        print(complaint)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
