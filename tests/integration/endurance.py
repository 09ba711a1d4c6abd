#!/usr/bin/env python3
"""One training under fire: its stages and its portal are killed, stopped, asked to leave and come back at random moments, in steps, evaluations,
checkpoints and recoveries, KILLS times in all; what it leaves must be, file by file, what the same training leaves undisturbed.

Usage: endurance.py BIN_DIRECTORY [KILLS [SEED]]. Exit code 0: all files are equal; 1: they are not, or a process ended by itself. On failure the
logs stay, where the last line says."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

DEVICES = ["d0", "d1", "d2", "d3"]
FLAGS = ["--model", "lenet5", "--data", "fashion-mnist", "--data-limit", "800", "--validation-fraction", "0.25", "--batch", "10", "--micro-batches", "4",
         "--epochs", "500", "--lr", "0.004", "--momentum", "0.9", "--optimizer", "sgd", "--early-stop", "8", "--checkpoint-every", "20", "--seed", "11",
         "--join-timeout-s", "300", "--quiet"]
SHARE_UNDER_FIRE = 0.98  # of the training's steps
STALLED_S = 300          # without a new step: it is given up
# What may differ between two runs that did the same: times, places, and what happened on the way.
METRICS_THAT_DIFFER = ("step_ms", "samples_per_s", "durable_step", "stages", "event")
RESULTS_THAT_DIFFER = ("samples_per_s", "median_step_ms", "memory")
KINDS = [("a stage is killed", 48), ("two stages are killed", 5), ("a stage is stopped", 17), ("a stage is asked to leave", 8),
         ("the portal is killed", 13), ("the portal is stopped", 9)]


class Process:
    """A program that is started again some time after it has ended."""

    def __init__(self, name, command, log, may_end_with):
        self.name, self.command, self.log, self.may_end_with = name, command, log, may_end_with
        self.process = None
        self.start_at = 0.0
        self.go_on_at = None  # while it is stopped
        self.ended_well = False

    def running(self):
        return self.process is not None and self.process.poll() is None

    def look(self, now, returns_after):
        """Starts it, lets it go on; what it ended with by itself, if it should not have."""
        if self.ended_well:
            return None
        if self.process is not None and self.process.poll() is not None:
            code = self.process.returncode
            self.process, self.go_on_at = None, None
            if code == 0 and self.name == "portal":
                self.ended_well = True
                return None
            self.start_at = now + returns_after
            if code not in self.may_end_with:
                return f"{self.name} ended with {code}"
        if self.process is None and now >= self.start_at:
            with open(self.log, "ab") as log:
                self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if self.go_on_at is not None and now >= self.go_on_at:
            self.process.send_signal(signal.SIGCONT)
            self.go_on_at = None
        return None

    def stop(self, until):
        self.process.send_signal(signal.SIGSTOP)
        self.go_on_at = until

    def end(self):
        if self.running():
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Metrics:
    """The newest step in a growing metrics.jsonl."""

    def __init__(self, path):
        self.path, self.offset, self.step = path, 0, 0

    def newest(self):
        try:
            with open(self.path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < self.offset:
                    self.offset = 0  # a line that was cut is gone
                file.seek(self.offset)
                text = file.read()
        except FileNotFoundError:
            return self.step
        whole = text.rfind(b"\n") + 1
        self.offset += whole
        for line in text[:whole].splitlines():
            if line.startswith(b'{"step":'):
                self.step = max(self.step, json.loads(line)["step"])
        return self.step


def free_port():
    import socket
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cluster_file(directory):
    path = directory / "cluster.yaml"
    lines = ["name: endurance", "portal: d0", "portal_address: 127.0.0.1", "devices:"]
    lines += [f"  - {{name: {d}, memory_mib: 1024, speed: 0.5}}" for d in DEVICES]
    path.write_text("\n".join([*lines, "default_link: {mbps: 1000, latency_ms: 0.1}"]) + "\n")
    return path


def programs(binaries, directory, name):
    port = free_port()
    portal = [binaries / "ecopipe-train", "--cluster", directory / "cluster.yaml", "--bind", f"tcp://127.0.0.1:{port}", "--out", directory / name, "--resume",
              *FLAGS]
    stages = {d: [binaries / "ecopipe-stage", "--join", f"tcp://127.0.0.1:{port}", "--name", d, "--stay", "--orphan", "wait"] for d in DEVICES}
    killed, left, left_early = -signal.SIGKILL, 128 + signal.SIGTERM, -signal.SIGTERM  # early: before it has a handler
    return (Process("portal", portal, directory / f"{name}.portal.log", {killed}),
            {d: Process(d, command, directory / f"{name}.{d}.log", {killed, left, left_early}) for d, command in stages.items()})


def state_of(directory):
    try:
        return json.loads((directory / "status.json").read_text())["view"]["state"]
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return "starting"


def train(binaries, directory, name, kills, steps, rng):
    """Returns what went wrong ("" for nothing), disturbances by kind, by what the run was doing, and the longest time without a new step."""
    portal, stages = programs(binaries, directory, name)
    everyone = [portal, *stages.values()]
    metrics = Metrics(directory / name / "metrics.jsonl")
    by_kind, by_state, done, longest, wrong = {}, {}, 0, 0.0, ""
    next_at, newest, moved_at = 0.0, 0, time.monotonic()
    try:
        while not portal.ended_well and not wrong:
            now = time.monotonic()
            for process in everyone:
                wrong = wrong or process.look(now, rng.uniform(0, 1.5)) or ""
            step = metrics.newest()
            if step > newest:
                longest = max(longest, now - moved_at) if newest > 0 else 0.0
                newest, moved_at = step, now
            elif now - moved_at > STALLED_S:
                wrong = f"no step for {STALLED_S} s, after step {step}"
            if done < kills and step > 0 and now >= next_at and done < kills * step / (SHARE_UNDER_FIRE * steps):
                kind = rng.choices([k for k, _ in KINDS], [w for _, w in KINDS])[0]
                targets = [portal] if "portal" in kind else rng.sample(list(stages.values()), 2 if "two" in kind else 1)
                targets = [t for t in targets if t.running() and t.go_on_at is None]
                if targets:
                    state = state_of(directory / name)
                    for target in targets:
                        if "stopped" in kind:
                            target.stop(now + rng.choice([rng.uniform(0.05, 0.6), rng.uniform(1, 4)]))
                        else:
                            target.process.send_signal(signal.SIGTERM if "leave" in kind else signal.SIGKILL)
                    done += len(targets)
                    by_kind[kind] = by_kind.get(kind, 0) + len(targets)
                    by_state[state] = by_state.get(state, 0) + len(targets)
                    next_at = now + rng.choice([rng.uniform(0, 0.1), rng.uniform(0.1, 1.2)])
            time.sleep(0.004)
    finally:
        for process in everyone:
            process.end()
    if not wrong and done < kills:
        wrong = f"only {done} of {kills} disturbances before the end"
    return wrong, by_kind, by_state, longest


def lines_of(path):
    out = []
    for line in path.read_text().splitlines():
        line = json.loads(line)
        out.append({key: value for key, value in line.items() if key not in METRICS_THAT_DIFFER})
    return out


def results_of(path):
    results = json.loads(path.read_text())["results"]
    return {key: value for key, value in results.items() if key not in RESULTS_THAT_DIFFER}


def differences(undisturbed, disturbed):
    wrong = []
    for name in ["model.safetensors", "best.safetensors"]:
        if (undisturbed / name).read_bytes() != (disturbed / name).read_bytes():
            wrong.append(f"{name} differs")
    checkpoints = [sorted(p.name for p in (d / "checkpoints").iterdir()) for d in (undisturbed, disturbed)]
    if checkpoints[0] != checkpoints[1]:
        wrong.append(f"checkpoints: {checkpoints[0]}, then {checkpoints[1]}")
    for name in set(checkpoints[0]) & set(checkpoints[1]):
        if (undisturbed / "checkpoints" / name).read_bytes() != (disturbed / "checkpoints" / name).read_bytes():
            wrong.append(f"{name} differs")
    if lines_of(undisturbed / "metrics.jsonl") != lines_of(disturbed / "metrics.jsonl"):
        wrong.append("metrics.jsonl differs")
    if results_of(undisturbed / "run.json") != results_of(disturbed / "run.json"):
        wrong.append("the results in run.json differ")
    return wrong


def main():
    binaries = pathlib.Path(sys.argv[1])
    kills = int(sys.argv[2]) if len(sys.argv) > 2 else 50
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.SystemRandom().randrange(1 << 32)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="ecopipe-endurance-"))
    cluster_file(directory)
    started = time.monotonic()
    wrong, _, _, _ = train(binaries, directory, "undisturbed", 0, 1, random.Random(0))
    if wrong:
        sys.exit(f"undisturbed: {wrong}; logs in {directory}")
    results = results_of(directory / "undisturbed" / "run.json")
    print(f"undisturbed: {results['steps']} steps, {time.monotonic() - started:.0f} s", flush=True)
    started = time.monotonic()
    wrong, kinds, states, longest = train(binaries, directory, "disturbed", kills, results["steps"], random.Random(seed))
    found = [wrong] if wrong else differences(directory / "undisturbed", directory / "disturbed")
    print(f"disturbed: {sum(kinds.values())} times, seed {seed}, {time.monotonic() - started:.0f} s; the longest pause {longest:.1f} s")
    for table in (kinds, states):
        print("  " + ", ".join(f"{name}: {count}" for name, count in sorted(table.items(), key=lambda entry: -entry[1])))
    if found:
        sys.exit("; ".join(found) + f"; logs in {directory}")
    print("every output file is equal")
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
