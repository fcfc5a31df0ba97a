#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the virtual environments that the peers' scripts run in: packages.txt says which."""

import argparse
import pathlib
import subprocess
import sys


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=pathlib.Path, required=True, help="where they are made")
    parser.add_argument("--only", help="one environment of packages.txt")
    options = parser.parse_args()
    table = pathlib.Path(__file__).with_name("packages.txt").read_text(encoding="utf-8")
    failed = []
    for line in table.splitlines():
        if not line or line.startswith("#"):
            continue
        name, flags, *packages = line.split()
        if options.only not in (None, name) or name in failed:
            continue
        home = options.dir / name
        python = home / "bin" / "python"
        print(f"install: {name}: {' '.join(packages)}", file=sys.stderr, flush=True)
        try:
            if not python.exists():
                subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
            pip = [str(python), "-m", "pip", "install", "--quiet", *packages]
            subprocess.run(pip if flags == "-" else [*pip, flags], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"install: {name}: {error}", file=sys.stderr)
            failed.append(name)
    if failed:
        print(f"install: not installed: {' '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
