#!/usr/bin/env python3
"""The federated experiments of docs/FEDERATION.md: 300 virtual clusters, lenet5 on Fashion-MNIST.

    bench/federated/strategies.py --out DIR [--seeds 1,2,3] [--only rlg-iid,rlg-niid,...] [--variants main,...]

Runs ecopipe-fl-sim for every scenario and variant, then prints the tables. Interrupted, the same command goes on
where it stopped; what is finished is not run again. --tables prints the tables of what is finished and runs nothing.
--record FILE.csv: runs that are in it count as finished, whatever their virtual time, and those that are finished are put into it, a line each:
scenario, variant, strategy, seed, seconds between two evaluations, accuracies.
"""
import argparse
import csv
import json
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
BASELINES = ["fedavg", "fedprox", "fedasync", "fedat"]
TARGETS = [40, 50, 60, 65, 70, 75]

# The authors' local training: Adam, 3 epochs, batches of 10.
CLIENT = "client: {epochs: 3, batch: 10, optimizer: adam, lr: 0.001}\n"


def simulation(labels, drift=False):
    moving = ", drift_every_s: 100, drift_share: 0.1" if drift else ""
    return f"simulation: {{labels: {labels}, evaluate_every_s: 20, evaluation_samples: 2000{moving}}}\n"


def eco_fl(**parameters):
    return "strategy: {name: eco-fl" + "".join(f", {key}: {value}" for key, value in parameters.items()) + "}\n"


# name -> (strategies, parameters of eco-fl)
ABLATIONS = {
    "no distribution term": {"lambda": 0},
    "distribution term as strong as latency": {"lambda": 1},
    "synchronous between groups": {"between": "synchronous"},
    "random selection inside a group": {"selection": "random"},
    "mixing models": {"mixing": "model"},
    "newest version served": {"average": 0},
}


def plan():
    """(scenario, variant, strategies, configuration, flags)"""
    for scenario, labels in (("rlg-iid", "independent"), ("rlg-niid", "tied")):
        config = CLIENT + simulation(labels)
        yield scenario, "main", BASELINES + ["eco-fl"], config, []
        for variant, parameters in ABLATIONS.items():
            yield scenario, variant, ["eco-fl"], config + eco_fl(**parameters), []
        drift = CLIENT + simulation(labels, drift=True)
        yield scenario + "-drift", "main", ["fedavg", "eco-fl"], drift, []
        yield scenario + "-drift", "no regrouping", ["eco-fl"], drift + eco_fl(regroup="off"), []
    config = CLIENT + simulation("tied")
    yield "fashion_cnn", "main", ["fedavg", "eco-fl"], config, ["--model", "fashion_cnn"]


def evaluations(directory):
    """strategy -> seed -> [(virtual s, accuracy)] of the finished runs in a directory"""
    runs = {}
    for path in sorted(directory.glob("*-seed*.jsonl")):
        strategy, seed = path.stem.rsplit("-seed", 1)
        lines = map(json.loads, path.read_text().splitlines())
        points = [(line["virtual_s"], line["accuracy"]) for line in lines if line.get("event") == "evaluation"]
        runs.setdefault(strategy, {})[int(seed)] = points
    return runs


def directory_of(out, scenario, variant):
    return out / scenario / variant.replace(" ", "-")


def restore(record, out):
    for scenario, variant, strategy, seed, interval, *accuracies in csv.reader(record.read_text().splitlines()):
        path = directory_of(out, scenario, variant) / f"{strategy}-seed{seed}.jsonl"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(
            json.dumps({"virtual_s": index * float(interval), "event": "evaluation", "round": 0, "tasks": 0,
                        "accuracy": float(accuracy), "loss": 0}) + "\n" for index, accuracy in enumerate(accuracies)))


def keep(record, out):
    lines = []
    for scenario, variant, *_ in plan():
        for strategy, seeds in sorted(evaluations(directory_of(out, scenario, variant)).items()):
            for seed, points in sorted(seeds.items()):
                accuracies = [f"{accuracy:g}" for _, accuracy in points]
                lines.append(",".join([scenario, variant, strategy, str(seed), f"{points[1][0]:g}", *accuracies]) + "\n")
    record.write_text("".join(lines))


def time_to(points, accuracy):
    """The first of three evaluations in a row that reach it."""
    for first in range(len(points) - 2):
        if all(point[1] >= accuracy for point in points[first:first + 3]):
            return points[first][0]
    return None


def row(label, seeds):
    cells = []
    for target in TARGETS:
        reached = [time for time in (time_to(points, target / 100) for points in seeds.values()) if time is not None]
        cell = f"{statistics.mean(reached):.0f}" if reached else "-"
        cells.append(cell if len(reached) in (0, len(seeds)) else f"{cell} ({len(reached)} of {len(seeds)} seeds)")
    best = [100 * max(accuracy for _, accuracy in points) for points in seeds.values()]
    spread = f" ({min(best):.1f} to {max(best):.1f})" if len(best) > 1 else ""
    until = max(points[-1][0] for points in seeds.values())
    return f"| {label} | {' | '.join(cells)} | {statistics.mean(best):.1f} %{spread} | {until:.0f} s, {len(seeds)} |"


def tables(out):
    lines = []
    for scenario in dict.fromkeys(entry[0] for entry in plan()):
        directory = {variant: directory_of(out, scenario, variant) for name, variant, *_ in plan() if name == scenario}
        main_runs = evaluations(directory["main"])
        rows = [row(strategy, main_runs[strategy]) for strategy in BASELINES + ["eco-fl"] if strategy in main_runs]
        for variant in directory:
            if variant != "main":
                rows += [row(f"{strategy}, {variant}", seeds) for strategy, seeds in evaluations(directory[variant]).items()]
        if rows:
            head = " | ".join(f"s to {target} %" for target in TARGETS)
            lines += [f"**{scenario}**", "", f"| strategy | {head} | best | virtual time, seeds |", "|---" * (3 + len(TARGETS)) + "|", *rows, ""]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--only", default="", help="scenarios, comma-separated")
    parser.add_argument("--variants", default="", help="main and ablations, comma-separated")
    parser.add_argument("--workers", default="0")
    parser.add_argument("--virtual-seconds", default="1000")
    parser.add_argument("--bin", type=pathlib.Path, default=HERE.parent.parent / "build" / "bin")
    parser.add_argument("--tables", action="store_true")
    parser.add_argument("--record", type=pathlib.Path)
    options = parser.parse_args()
    if options.record and options.record.exists():
        restore(options.record, options.out)
    # Seed by seed, so that an early stop leaves whole comparisons.
    seeds = options.seeds.split(",")
    for done in range(1, 1 if options.tables else len(seeds) + 1):
        for scenario, variant, strategies, config, flags in plan():
            if options.only and scenario not in options.only.split(","):
                continue
            if options.variants and variant not in options.variants.split(","):
                continue
            directory = directory_of(options.out, scenario, variant)
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "server.yaml").write_text(config)
            command = [options.bin / "ecopipe-fl-sim", "--strategy", ",".join(strategies), "--clients", "300",
                       "--clients-per-round", "30", "--virtual-seconds", options.virtual_seconds, "--config",
                       directory / "server.yaml", "--seeds", ",".join(seeds[:done]), "--out", directory,
                       "--svg", directory / "accuracy.svg", "--workers", options.workers, *flags]
            print("+", *command, file=sys.stderr)
            finished = subprocess.run([str(word) for word in command], stdout=subprocess.DEVNULL, check=False)
            if finished.returncode != 0:
                return finished.returncode
    if options.record:
        keep(options.record, options.out)
    print(tables(options.out))
    return 0


sys.exit(main())
