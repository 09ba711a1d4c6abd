#!/usr/bin/env python3
"""Measured against predicted steps on random emulated clusters: `ecopipe-bench pipeline` on each.

    emulated_clusters.py [--count 20] [--seed 1] [--model plain_cnn] [--steps 8] [--turns 2] [--first 0]

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

BENCH = pathlib.Path(__file__).resolve().parent.parent / "build/bin/ecopipe-bench"
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
    options = parser.parse_args()
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
            run = subprocess.run(
                [BENCH, "pipeline", "--cluster", file.name, "--model", options.model, "--data", options.data, "--batch",
                 str(options.batch), "--micro-batches", str(micro_batches), "--steps", str(options.steps), "--turns",
                 str(options.turns), "--json"], capture_output=True, text=True, check=False)
        if run.returncode != 0:
            print(f"cluster {index}: {run.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return 1
        result = json.loads(run.stdout)
        predicted = result["predicted_ms"] + result["control_ms"]
        ratios.append(result["step_ms"] / predicted)
        below.append(result["step_ms"] / result["lower_bound_ms"])
        used = " / ".join(f"{stage['device']}: {stage['layers']}" for stage in result["stages"])
        print(f"| {index} | {', '.join(f'{s:.2f}' for s in speeds)} | {min(rates):.0f}-{max(rates):.0f} | {used} |"
              f" {micro_batches} | {predicted:.1f} | {result['step_ms']:.1f} | {ratios[-1]:.3f} | {below[-1]:.3f} |"
              f" {result['bound_by']} |", flush=True)
    off = sorted(abs(ratio - 1) for ratio in ratios)
    print(f"\nmeasured / predicted: median {statistics.median(ratios):.3f}, off by {100 * statistics.median(off):.1f} % in "
          f"the median, {100 * off[max(0, -(-len(off) * 9 // 10) - 1)]:.1f} % in nine of ten, {100 * off[-1]:.1f} % at worst; "
          f"measured / bound at least {min(below):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
