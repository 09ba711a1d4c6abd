#!/usr/bin/env python3
"""Measured against predicted steps on random emulated clusters: `ecopipe-bench pipeline` on each.

    emulated_clusters.py [--kinds] [--count 20] [--seed 1] [--model plain_cnn] [--steps 8] [--turns 2] [--first 0]

--kinds: the plan that the planner chooses when several devices may hold a stage, beside the best pipeline, data
parallelism over the devices (at most 8 sum blocks, by speed) and the fastest device alone, measured one after the other.
Every cluster has 2 to 6 devices whose speeds sum to at most 1.5, so that two idle cores can emulate them, and links
of 20 to 1000 Mbit/s. Prints a table in Markdown and a summary; exits with 1 when a run fails.
"""
import argparse
import json
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

PROGRAMS = pathlib.Path(__file__).resolve().parent.parent / "build/bin"
SPEED_SUM_MAX = 1.5


def random_cluster(rng):
    count = rng.randint(2, 6)
    weights = [rng.uniform(0.3, 1.0) for _ in range(count)]
    total = rng.uniform(1.0, SPEED_SUM_MAX)
    speeds = [min(1.0, weight / sum(weights) * total) for weight in weights]
    names = [f"d{i}" for i in range(count)]
    lines = ["name: emulated", "portal: d0", "portal_address: 127.0.0.1", "devices:"]
    lines += [f"  - {{name: {name}, memory_mib: 4096, speed: {speed:.3f}}}" for name, speed in zip(names, speeds)]
    lines += ["default_link: {mbps: 1000, latency_ms: 0.2}", "links:"]
    rates = []
    for a in range(count):
        for b in range(a + 1, count):
            mbps = 20 * 50 ** rng.random()  # log-uniform: as many slow links as fast ones
            rates.append(mbps)
            lines.append(f"  - {{between: [d{a}, d{b}], mbps: {mbps:.1f}, latency_ms: {rng.uniform(0.1, 2):.2f}}}")
    return "\n".join(lines) + "\n", speeds, rates


def call(program, *words):
    run = subprocess.run([PROGRAMS / program, *map(str, words)], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        sys.exit(f"{program}: {run.stderr.strip().splitlines()[-1]}")
    return run.stdout


def measured(options, cluster, *flags):
    return json.loads(call("ecopipe-bench", "pipeline", "--cluster", cluster, "--model", options.model, "--data", options.data,
                           "--steps", options.steps, "--turns", options.turns, "--json", *flags))


def dealt(speeds, sum_blocks):
    """How many sum blocks each device gets, so that the last is done first."""
    counts = [0] * len(speeds)
    for _ in range(sum_blocks):
        counts[min(range(len(speeds)), key=lambda d: (counts[d] + 1) / speeds[d])] += 1
    return counts


def hand_plans(model, layers, batch, micro_batches, speeds):
    """Data parallelism, and the fastest device alone."""
    def stage(device, blocks):
        return {"device": f"d{device}", "in_flight": 1, "recompute": False, "blocks": blocks}

    def plan(sum_blocks, first, twins):
        whole = {**first, "first_layer": 0, "last_layer": layers - 1, "twins": twins}
        if not twins:
            del whole["blocks"], whole["twins"]
        return {"schema": "ecopipe.plan/1", "model": model, "batch": batch, "micro_batches": micro_batches,
                "sum_blocks": sum_blocks, "schedule": "1f1b", "stages": [whole]}

    sum_blocks = min(micro_batches, 8)
    holders, next_block = [], 0
    for device, count in sorted(enumerate(dealt(speeds, sum_blocks)), key=lambda pair: -pair[1]):
        if count > 0:
            holders.append(stage(device, list(range(next_block, next_block + count))))
            next_block += count
    return {"data parallel": plan(sum_blocks, holders[0], holders[1:]),
            "one device": plan(1, stage(speeds.index(max(speeds)), []), [])}


def compare_kinds(options):
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        profile = directory / "profile.json"
        call("ecopipe-profile", "--model", options.model, "--data", options.data, "--micro-batch", "4,8,16", "--seconds", 2,
             "--out", profile)
        layers = len(json.loads(profile.read_text(encoding="utf-8"))["layers"])
        print("| cluster | devices (speeds) | links Mbit/s | M | chosen | predicted ms | measured ms | pipeline | data parallel |"
              " one device | to the best |")
        print("|---|---|---|---|---|---|---|---|---|---|---|")
        lost, off = [], []
        for index in range(options.first, options.first + options.count):
            rng = random.Random(f"{options.seed}/{index}")
            text, speeds, rates = random_cluster(rng)
            micro_batches = rng.choice([4, 8, 16])
            cluster = directory / "cluster.yaml"
            cluster.write_text(text, encoding="utf-8")
            files = {kind: directory / f"{kind}.json" for kind in ("chosen", "pipeline", "data parallel", "one device")}
            for kind, sum_blocks in (("chosen", "auto"), ("pipeline", 1)):
                call("ecopipe-plan", "--cluster", cluster, "--profile", profile, "--batch", options.batch, "--micro-batches",
                     micro_batches, "--sum-blocks", sum_blocks, "--out", files[kind])
            for kind, plan in hand_plans(options.model, layers, options.batch, micro_batches, speeds).items():
                files[kind].write_text(json.dumps(plan), encoding="utf-8")
            results = {kind: measured(options, cluster, "--plan", file) for kind, file in files.items()}
            times = {kind: result["step_ms"] for kind, result in results.items()}
            chosen = json.loads(files["chosen"].read_text(encoding="utf-8"))
            predicted = results["chosen"]["predicted_ms"] + results["chosen"]["control_ms"]
            lost.append(times["chosen"] / min(times.values()))
            off.append(abs(times["chosen"] / predicted - 1))
            used = "; ".join("+".join([stage["device"], *(twin["device"] for twin in stage.get("twins", []))]) +
                             f" {stage['first_layer']}-{stage['last_layer']}" for stage in chosen["stages"])
            others = " | ".join(f"{times[kind]:.1f}" for kind in ("pipeline", "data parallel", "one device"))
            print(f"| {index} | {', '.join(f'{s:.2f}' for s in speeds)} | {min(rates):.0f}-{max(rates):.0f} | {micro_batches} |"
                  f" {used} | {predicted:.1f} | {times['chosen']:.1f} | {others} | {lost[-1]:.3f} |", flush=True)
        print(f"\nto the best of four: at most {max(lost):.3f}, {sum(1 for each in lost if each <= 1.03)} of {len(lost)} within 1.03; "
              f"predictions off by {100 * statistics.median(off):.1f} % in the median, {100 * nine_of_ten(off):.1f} % in nine of ten")


def nine_of_ten(values):
    return sorted(values)[max(0, -(-len(values) * 9 // 10) - 1)]


def main():
    parser = argparse.ArgumentParser(description="measured against predicted steps on random emulated clusters")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="start with this cluster of the sequence")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", default="plain_cnn")
    parser.add_argument("--data", default="synthetic:3x16x16:10:512")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--kinds", action="store_true")
    options = parser.parse_args()
    if options.kinds:
        return compare_kinds(options)
    ratios, below = [], []
    print("| cluster | devices (speeds) | links Mbit/s | plan | M | predicted ms | measured ms | ratio | to bound | bound by |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for index in range(options.first, options.first + options.count):
        rng = random.Random(f"{options.seed}/{index}")
        text, speeds, rates = random_cluster(rng)
        micro_batches = rng.choice([4, 8, 16])
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(text)
            file.flush()
            result = measured(options, file.name, "--batch", options.batch, "--micro-batches", micro_batches)
        predicted = result["predicted_ms"] + result["control_ms"]
        ratios.append(result["step_ms"] / predicted)
        below.append(result["step_ms"] / result["lower_bound_ms"])
        used = " / ".join(f"{stage['device']}: {stage['layers']}" for stage in result["stages"])
        print(f"| {index} | {', '.join(f'{s:.2f}' for s in speeds)} | {min(rates):.0f}-{max(rates):.0f} | {used} |"
              f" {micro_batches} | {predicted:.1f} | {result['step_ms']:.1f} | {ratios[-1]:.3f} | {below[-1]:.3f} |"
              f" {result['bound_by']} |", flush=True)
    off = [abs(ratio - 1) for ratio in ratios]
    print(f"\nmeasured / predicted: median {statistics.median(ratios):.3f}, off by {100 * statistics.median(off):.1f} % in "
          f"the median, {100 * nine_of_ten(off):.1f} % in nine of ten, {100 * max(off):.1f} % at worst; "
          f"measured / bound at least {min(below):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
