#!/usr/bin/env python3
"""What includes torch compiles against the LibTorch of another Debian release too. usage: check_newer_torch.py COMPILE_COMMANDS RELEASE

Of that release only libtorch-dev's headers are fetched, by apt with lists of its own, and unpacked aside; the rest stays as it
is here. Files are read by the compiler that the build has, with its flags, without code being made. Exit code 77, "skipped":
no Debian mirror in reach, or the LibTorch of the build is not Debian's.
"""
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

API = "torch/csrc/api/include"
OWN = ("ATen", "c10", "caffe2", "torch")


def skip(why):
    print(f"skipped: {why}", file=sys.stderr)
    sys.exit(77)


def mirror():
    """As this machine reaches its packages."""
    if "ECOPIPE_DEBIAN_MIRROR" in os.environ:
        return os.environ["ECOPIPE_DEBIAN_MIRROR"]
    for path in [pathlib.Path("/etc/apt/sources.list"), *sorted(pathlib.Path("/etc/apt/sources.list.d").glob("*.[ls]*"))]:
        if path.suffix in (".list", ".sources"):
            found = re.search(r"^(?:URIs:|deb )[^#\n]*?(https?://\S+/debian)/?(?:\s|$)", path.read_text(encoding="utf-8"), re.M) \
                if path.exists() else None
            if found:
                return found.group(1)
    return skip("no Debian mirror among this machine's package sources; set ECOPIPE_DEBIAN_MIRROR")


def fetch(release, at):
    """The release's libtorch-dev, unpacked below `at`: its include directory."""
    for name in ("lists/partial", "cache/archives/partial"):
        (at / name).mkdir(parents=True)
    (at / "sources.list").write_text(f"deb {mirror()} {release} main\n", encoding="utf-8")
    apt = ["apt-get", "-qq", "-o", f"Dir::Etc::SourceList={at}/sources.list", "-o", "Dir::Etc::SourceParts=/dev/null",
           "-o", f"Dir::State::Lists={at}/lists", "-o", f"Dir::Cache={at}/cache", "-o", "Acquire::Languages=none",
           "-o", "APT::Sandbox::User=root", "-o", "APT::Update::Error-Mode=any", "-o", "Acquire::Retries=1"]
    for words in (["update"], ["download", "libtorch-dev"]):
        try:
            done = subprocess.run(apt + words, cwd=at, capture_output=True, text=True, check=False, timeout=180)
        except (FileNotFoundError, subprocess.TimeoutExpired) as error:
            skip(f"apt-get {words[0]}: {error}")
        if done.returncode != 0:
            skip(f"{release}'s libtorch-dev cannot be fetched: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
    subprocess.run(["dpkg", "-x", str(next(at.glob("libtorch-dev_*.deb"))), str(at / "root")], check=True)
    include = at / "include"
    include.mkdir()
    for name in OWN:
        found = at / "root/usr/include" / name
        if found.exists():
            (include / name).symlink_to(found)
    return include


def main():
    commands = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
    # By what torch's target gives to its users; of what the build has written, only files that gather others.
    wanted = [c for c in commands if f"/usr/include/{API}" in c["command"]
              and (not c["file"].startswith(c["directory"]) or "/Unity/" in c["file"])]
    if not wanted:
        skip("the LibTorch of this build is not Debian's")
    with tempfile.TemporaryDirectory() as directory:
        at = pathlib.Path(directory)
        include = fetch(sys.argv[2], at)
        version = re.search(r'"([\d.]+)"', (include / API / "torch/version.h").read_text(encoding="utf-8")).group(1)

        def flags_of(command):
            words = shlex.split(command["command"])
            while os.path.basename(words[0]) == "ccache":
                words.pop(0)
            return [words[0], "-isystem", str(include), "-isystem", str(include / API)] + \
                [w for i, w in enumerate(words[1:]) if words[i] == "-isystem" or
                 (re.match(r"-(I|D|W|std|f|isystem)", w) and w != "-Winvalid-pch")]

        # The headers are most of the work: they are read once, for those that the build gives them to.
        header = at / "precompiled.h"
        header.write_text("#include <torch/script.h>\n", encoding="utf-8")
        subprocess.run(flags_of(wanted[0]) + ["-x", "c++-header", str(header), "-o", f"{header}.gch"], check=True)

        def compiles(command):
            before = ["-include", str(header)] if "cmake_pch" in command["command"] else []
            return command, subprocess.run(flags_of(command) + [*before, "-fsyntax-only", command["file"]],
                                           cwd=command["directory"], capture_output=True, text=True, check=False)

        failed = 0
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for command, done in pool.map(compiles, wanted):
                if done.returncode != 0:
                    failed += 1
                    print(f"{command['file']} does not compile against LibTorch {version}:\n{done.stderr[:2000]}")
    if failed:
        sys.exit(1)
    print(f"{len(wanted)} files compile against LibTorch {version} of {sys.argv[2]}")


if __name__ == "__main__":
    main()
