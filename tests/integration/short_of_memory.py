#!/usr/bin/env python3
"""Every program under a limit of its address space (ulimit -v), from what it needs to be loaded upwards: it does its work, or ends with
one line on stderr and exit code 1; it never aborts, hangs or says more. Usage: short_of_memory.py BIN_DIRECTORY REPOSITORY"""

import pathlib
import subprocess
import sys
import tempfile

BIN, REPOSITORY = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
PLANNER = REPOSITORY / "tests/planner/data"
MIB = 1 << 20
STEPS_MIB = (0, 8, 24, 64, 96, 160, 256, 384)  # above the least that loads
TIMEOUT_S = 60
LOADER = 127  # the dynamic loader found no room: main was never reached
# What libraries say themselves when they find no room while they are loaded, before any code of ours runs.
GNUTLS = "Error in GnuTLS initialization:"
BEFORE_MAIN = ("OpenBLAS blas_thread_init:", "***MEMORY-ERROR***", "GLib", GNUTLS)


def run(arguments, limit):
    with tempfile.TemporaryDirectory() as directory:
        command = ["prlimit", f"--as={limit}", BIN / arguments[0]]
        command += [str(a).replace("@", directory) for a in arguments[1:]]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            return "hangs", ""
        return done.returncode, done.stderr


def least_that_loads(program):
    low, high = 8, 8192
    while high - low > 8:
        middle = (low + high) // 2
        low, high = (middle, high) if run([program, "--version"], middle * MIB)[0] == LOADER else (low, middle)
    return high


def main():
    data = ["--data", "synthetic:1x28x28:10:64"]
    programs = [
        ["ecopipe-plan", "--cluster", PLANNER / "home.yaml", "--profile", PLANNER / "hub.json", "--batch", "64"],
        ["ecopipe-keygen", "--keys", "@/keys", "--name", "hub"],
        ["ecopipe-train", "--single", "--model", "lenet5", *data, "--steps", "1", "--batch", "8", "--micro-batches", "2", "--out", "@/out", "--quiet"],
        ["ecopipe-stage", "--join", "tcp://127.0.0.1:9", "--name", "pi", "--join-timeout-s", "0.1"],
        ["ecopipe-profile", "--model", "lenet5", "--input", "1x28x28", "--micro-batch", "1", "--out", "@/profile.json"],
        ["ecopipe-fl-server", "status", "--state", "@/none"],  # `run` ends only when it is told to
        ["ecopipe-fl-sim", "--strategy", "fedavg", "--clients", "2", "--model", "lenet5", *data, "--seeds", "1", "--virtual-seconds", "1", "--out", "@/sim"],
        ["ecopipe-bench", "schedules", "--stages", "4", "--micro-batches", "8"],
    ]
    wrong = 0
    for arguments in programs:
        least = least_that_loads(arguments[0])
        plenty, said = run(arguments, 1 << 46)
        if plenty not in (0, 3, 4):  # 3: no state is there; 4: nobody is there to be joined
            sys.exit(f"{arguments[0]} does not work at all: {plenty} {said[-400:]}")
        seen = []
        for more in STEPS_MIB:
            code, said = run(arguments, (least + more) * MIB)
            lines = [line for line in said.splitlines() if line and "[warning]" not in line and "[info]" not in line]
            own = [line for line in lines if not line.startswith(BEFORE_MAIN)]
            # GnuTLS, which others bring along, goes on after this while it is loaded, and ends the program.
            loading = code < 0 and not own and any(line.startswith(GNUTLS) for line in lines)
            fine = code in (plenty, LOADER) or loading or (code == 1 and len(lines) > 0 and len(own) <= 1)
            seen.append(f"+{more}: {code}{'' if fine else ' WRONG ' + said[-400:]!r}")
            wrong += not fine
        print(f"{arguments[0]} from {least} MiB: {', '.join(seen)}", flush=True)
    sys.exit(f"{wrong} runs neither worked nor ended with one line" if wrong else 0)


main()
