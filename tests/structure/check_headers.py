#!/usr/bin/env python3
"""Every header compiles alone. usage: check_headers.py SOURCE_DIR

clang-tidy (scripts/tidy.sh) has shown it of those that a file of their name includes before anything else, if it needs no
torch: it compiles each such file alone. The others are compiled here, with the flags of a file that needs no torch; one that
includes torch's is left out.
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

MODULES = ["core", "domain", "planner", "transport", "stage_runtime", "orchestrator", "fl_server"]


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as build:
        subprocess.run(["cmake", "-S", root, "-B", build, "-G", "Ninja", "-DECOPIPE_TORCH=OFF", "-DECOPIPE_BUILD_TESTS=OFF",
                        "-DCMAKE_UNITY_BUILD=OFF", "-DECOPIPE_PRECOMPILE=OFF"], check=True, capture_output=True)
        commands = json.loads((pathlib.Path(build) / "compile_commands.json").read_text(encoding="utf-8"))
    wanted = next(c for c in commands if c["file"].endswith("orchestrator/session/membership.cpp"))
    words = shlex.split(wanted["command"])
    while os.path.basename(words[0]) == "ccache":
        words.pop(0)
    keep = [words[0]] + [w for i, w in enumerate(words[1:], 1) if w.startswith(("-I", "-D", "-W", "-std"))
                         or w == "-isystem" or words[i - 1] == "-isystem"]
    headers = [h for m in MODULES for h in sorted((root / m).rglob("*.h"))
               if not re.search(r"#include <(torch|ATen|c10|sqlite3)", h.read_text(encoding="utf-8"))]
    built = {c["file"] for c in commands}

    def shown(header):
        source = header.with_suffix(".cpp")
        if str(source) not in built:
            return False
        first = re.search(r"^#include (.*)$", source.read_text(encoding="utf-8"), re.M)
        return first.group(1) == f'"{header.relative_to(root)}"'

    alone = [h for h in headers if not shown(h)]

    def compiles(header):
        done = subprocess.run(keep + ["-fsyntax-only", "-x", "c++", "-include", str(header), os.devnull],
                              capture_output=True, text=True, check=False)
        return header, done

    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for header, done in pool.map(compiles, alone):
            if done.returncode != 0:
                failed += 1
                print(f"{header.relative_to(root)} does not compile alone:\n{done.stderr[:2000]}")
    if failed or not headers:
        sys.exit(1)
    print(f"{len(headers)} headers compile alone, {len(headers) - len(alone)} of them seen by clang-tidy")


if __name__ == "__main__":
    main()
