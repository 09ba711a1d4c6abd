#!/usr/bin/env python3
"""ecopipe against PyTorch on this machine, in turn (A B A B), with the same LibTorch and malloc thresholds raised for
both: the RPC pipeline on loopback, and DistributedDataParallel between two network namespaces.

    compare.py [rpc] [ddp] [--turns 3] [--rates 100,1000]

Needs Debian's python3-torch and python3-torchvision, two idle cores, and root for `ddp` (ip netns, tc).
"""
import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
BIN = HERE.parent.parent / "build/bin"
PYTHON = "/usr/bin/python3"  # Debian's: python3-torch belongs to it
ENVIRONMENT = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1)}
NAMESPACES = {"ecopipe-a": "10.87.0.1", "ecopipe-b": "10.87.0.2"}
BATCH = 64


def output(command, **options):
    run = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=600, **options)
    if run.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: {run.stderr.strip()}")
    return run.stdout


def plan(path, model, layers, cut, micro_batches):
    """Two stages cut after layer `cut`; the deepest 1f1b that helps."""
    stages = [{"device": "a", "first_layer": 0, "last_layer": cut, "in_flight": 3, "recompute": False},
              {"device": "b", "first_layer": cut + 1, "last_layer": layers - 1, "in_flight": 1, "recompute": False}]
    path.write_text(json.dumps({"schema": "ecopipe.plan/1", "model": model, "batch": BATCH, "micro_batches": micro_batches,
                                "schedule": "1f1b", "stages": stages}))
    return path


def compare_rpc(turns):
    micro_batches = 8
    ours, single, theirs = [], [], []
    for _ in range(turns):
        result = json.loads(output([BIN / "ecopipe-bench", "pipeline", "--stages", "2", "--model", "plain_cnn", "--batch",
                                    str(BATCH), "--micro-batches", str(micro_batches), "--data", "synthetic:3x16x16:10:512",
                                    "--turns", "1", "--steps", "10", "--json"]))
        cut = int(result["stages"][0]["layers"].split("-")[1])  # the planner's, for both
        ours.append(result["step_ms"])
        single.append(result["single_step_ms"])
        theirs.append(float(output([PYTHON, HERE / "rpc_pipeline.py", "--cut", str(cut), "--micro-batches",
                                    str(micro_batches), "--batch", str(BATCH)], cwd=HERE)))
    mine, rpc = statistics.median(ours), statistics.median(theirs)
    print(f"plain_cnn 3x16x16, batch {BATCH}, {micro_batches} micro-batches, cut after layer {cut}, loopback:")
    print(f"  one process {statistics.median(single):.1f} ms, ecopipe {mine:.1f} ms, PyTorch RPC pipeline {rpc:.1f} ms a step: "
          f"ecopipe is {rpc / mine:.2f} times as fast")


@contextlib.contextmanager
def two_machines(mbps):
    """Two namespaces joined by a link of this rate in each direction."""
    def ip(*words):
        output(["ip", *words])
    created = []
    try:
        for name in NAMESPACES:
            ip("netns", "add", name)
            created.append(name)
        ip("link", "add", "eco-a", "netns", "ecopipe-a", "type", "veth", "peer", "name", "eco-b", "netns", "ecopipe-b")
        for (name, address), device in zip(NAMESPACES.items(), ("eco-a", "eco-b")):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", device)
            ip("-n", name, "link", "set", device, "up")
            ip("-n", name, "link", "set", "lo", "up")
            output(["ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", device, "root", "tbf", "rate", f"{mbps}mbit",
                    "burst", "256kb", "latency", "100ms"])
        yield
    finally:
        for name in created:
            subprocess.run(["ip", "netns", "del", name], check=False)


def inside(name, command):
    return ["ip", "netns", "exec", name, *map(str, command)]


def ours_step_ms(directory, plan_file, turn):
    address = NAMESPACES["ecopipe-a"]
    out = directory / f"run{turn}"
    train = subprocess.Popen(
        inside("ecopipe-a", [BIN / "ecopipe-train", "--plan", plan_file, "--model", "mobilenet_v2", "--data",
                             "synthetic:3x64x64:10:640", "--steps", "10", "--no-evaluation", "--quiet", "--replicas", "off", "--out", out,
                             "--bind", f"tcp://{address}:5599", "--insecure"]),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    stages = [subprocess.Popen(
        inside(name, ["taskset", "-c", str(core), BIN / "ecopipe-stage", "--join", f"tcp://{address}:5599", "--name", device,
                      "--insecure", "--log-level", "error"]), env=ENVIRONMENT)
        for core, (name, device) in enumerate(zip(NAMESPACES, ("a", "b")))]
    try:
        _, errors = train.communicate(timeout=300)
    finally:
        train.kill()
        for stage in stages:
            with contextlib.suppress(subprocess.TimeoutExpired):
                stage.wait(timeout=10)
            stage.kill()
    if train.returncode != 0:
        sys.exit(f"ecopipe-train: {errors.strip()}")
    steps = [json.loads(line)["step_ms"] for line in (out / "metrics.jsonl").read_text().splitlines() if '"step_ms"' in line]
    return statistics.median(steps[2:])


def ddp_step_ms(port):
    commands = [inside(name, [PYTHON, HERE / "ddp.py", "--rank", rank, "--master", NAMESPACES["ecopipe-a"], "--port", port,
                              "--interface", device, "--batch", BATCH])
                for rank, (name, device) in enumerate(zip(NAMESPACES, ("eco-a", "eco-b")))]
    other = subprocess.Popen(commands[1], cwd=HERE, env=ENVIRONMENT)
    try:
        return float(output(commands[0], cwd=HERE))
    finally:
        other.wait(timeout=60)


def compare_ddp(turns, rates, directory):
    # What the planner chooses for two equal devices on such links.
    ours_plan = plan(directory / "mobilenet.json", "mobilenet_v2", 22, 12, 8)
    for mbps in rates:
        ours, theirs = [], []
        with two_machines(mbps):
            for turn in range(turns):
                ours.append(ours_step_ms(directory, ours_plan, f"{mbps}-{turn}"))
                theirs.append(ddp_step_ms(29500 + turn))
        mine, ddp = (BATCH / statistics.median(times) * 1000 for times in (ours, theirs))
        print(f"mobilenet_v2 3x64x64, batch {BATCH}, two machines at {mbps} Mbit/s: ecopipe {mine:.1f}, PyTorch DDP {ddp:.1f} "
              f"samples/s: ecopipe is {mine / ddp:.2f} times as fast", flush=True)


def main():
    parser = argparse.ArgumentParser(description="ecopipe against PyTorch's RPC pipeline and DDP")
    parser.add_argument("what", nargs="*", choices=["rpc", "ddp"], default=[])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rates", default="100,1000", help="Mbit/s of the link under ddp")
    options = parser.parse_args()
    what = options.what or ["rpc", "ddp"]
    with tempfile.TemporaryDirectory() as directory:
        if "rpc" in what:
            compare_rpc(options.turns)
        if "ddp" in what:
            compare_ddp(options.turns, [int(rate) for rate in options.rates.split(",")], pathlib.Path(directory))


if __name__ == "__main__":
    main()
