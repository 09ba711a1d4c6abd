#!/usr/bin/env python3
"""Exports models with a current PyTorch and holds ecopipe against it: outputs and gradients, and the bytes of one process
against those of two to four stages at random cuts under several schedules. Then what must be refused.

    exported_models.py BIN SOURCE PYTHON [--all] [--minilm DIR] [--aten 1.13|2.6]

PYTHON is an interpreter with PyTorch 2.6 or later and torchvision. Prints a row a model; exit code 1 when one fails. --all takes
torchvision's large ones too, as the table in docs/reference/graph.md has them."""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile

ZOO = "graph_zoo.py"
SMALL = [f"{ZOO}:{name}" for name in ("sequential", "unet", "two_branches", "lstm", "causal", "small_vit")] + ["shufflenet_v2_x1_0"]
LARGE = ["resnet50", "densenet121", "efficientnet_b0", "mobilenet_v3_small", "convnext_tiny", "swin_t"]
REFUSED = {"refused_branch": "depends on values of the data", "refused_batch": "the batch size is not free",
           "refused_mode": "training mode computes", "refused_write": "writes into memory that is read under another name"}
BATCH, MICRO_BATCHES, STEPS = 8, 4, 3

arguments = argparse.ArgumentParser()
arguments.add_argument("bin")
arguments.add_argument("source")
arguments.add_argument("python")
arguments.add_argument("--all", action="store_true")
arguments.add_argument("--minilm")
arguments.add_argument("--aten", default="1.13")
given = arguments.parse_args()
scripts = os.path.join(given.source, "scripts")
failures = []

# Samples for training, made of the reference's own: as many values of each kind as the model may be given.
MAKE_DATA = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from torch_files import read_safetensors
from graph_export.files import write_safetensors
reference, out, loss = read_safetensors(sys.argv[2]), sys.argv[3], sys.argv[4]
generator = torch.Generator().manual_seed(9)
inputs = {name: t for name, t in reference.items() if name.startswith("inputs.")}
data = {}
for name, tensor in inputs.items():
    flat = tensor.reshape(-1)
    at = torch.randint(0, flat.numel(), (24,) + tensor.shape[1:], generator=generator)
    data["inputs" if len(inputs) == 1 else name] = flat[at]
outputs = reference["outputs"]
shape = (24,) + outputs.shape[1:-1]
data["targets"] = torch.randint(0, outputs.shape[-1], shape, generator=generator) if loss == "cross_entropy" else torch.randn(
    (24,) + outputs.shape[1:], generator=generator)
if loss == "cross_entropy":
    data["targets"].view(-1)[0] = outputs.shape[-1] - 1
write_safetensors(out + "/train.safetensors", data)
"""


def run(command, **more):
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


def plan(graph, cuts, schedule):
    with open(os.path.join(graph, "graph.json"), "rb") as file:
        raw = file.read()
    ends = [0, *cuts, len(json.loads(raw)["nodes"])]
    count = len(ends) - 1
    stages = [{"device": f"d{s}", "first_layer": ends[s], "last_layer": ends[s + 1] - 1, "recompute": False,
               "in_flight": MICRO_BATCHES if schedule == "gpipe" else min(MICRO_BATCHES, 2 * (count - s) - 1)} for s in range(count)]
    return {"schema": "ecopipe.plan/1", "model": "sha256:" + hashlib.sha256(raw).hexdigest(), "batch": BATCH,
            "micro_batches": MICRO_BATCHES, "schedule": schedule, "stages": stages}


def trained(work, name, flags):
    out = os.path.join(work, name)
    done = run([os.path.join(given.bin, "ecopipe-train"), "--quiet", "--no-evaluation", "--steps", str(STEPS), "--seed", "3", "--data",
                f"tensors:{work}/data", "--out", out, *flags], timeout=600)
    if done.returncode != 0:
        return None, done.stderr.strip()
    with open(os.path.join(out, "model.safetensors"), "rb") as file:
        return file.read(), ""


def check(model, work):
    graph, reference = os.path.join(work, "graph"), os.path.join(work, "reference.safetensors")
    path = os.path.join(given.source, "tests/integration/reference", model) if model.startswith(ZOO) else model
    size = ["--input", "3x64x64", "--num-classes", "10"] if not model.startswith("hf:") else ["--tokens", "32,30522"]
    exporter = [given.python, os.path.join(scripts, "export_graph.py"), path, "--out", graph, "--aten", given.aten, *size]
    exported = run([*exporter, "--without-dropout", "--reference", reference])
    if exported.returncode != 0:
        return exported.stderr.strip().splitlines()[-1]
    compared = run([os.path.join(given.bin, "graph_reference"), graph, reference])
    if compared.returncode != 0:
        return compared.stdout + compared.stderr
    # What is trained has its dropout, which must draw the same on every partition.
    exported = run(exporter)
    if exported.returncode != 0:
        return exported.stderr.strip().splitlines()[-1]
    summary = exported.stdout.strip().splitlines()[-1].split(": ", 1)[1]
    loss = "mse" if model.startswith("hf:") else "cross_entropy"
    os.makedirs(f"{work}/data")
    made = run([given.python, "-c", MAKE_DATA, scripts, reference, f"{work}/data", loss])
    if made.returncode != 0:
        return made.stderr
    flags = ["--model", graph, "--loss", loss]
    alone, problem = trained(work, "single", ["--single", "--batch", str(BATCH), "--micro-batches", str(MICRO_BATCHES), *flags])
    if alone is None:
        return problem
    with open(os.path.join(graph, "graph.json"), encoding="utf-8") as file:
        nodes = len(json.load(file)["nodes"])
    rng = random.Random(model)
    for stages, schedule in ((2, "gpipe"), (3, "1f1b"), (min(4, nodes), "zb-h1")):
        if stages > nodes:
            continue
        cuts = sorted(rng.sample(range(1, nodes), stages - 1))
        with open(f"{work}/plan.json", "w", encoding="utf-8") as file:
            json.dump(plan(graph, cuts, schedule), file)
        piped, problem = trained(work, f"{schedule}{stages}", ["--local", "--plan", f"{work}/plan.json", *flags])
        if piped != alone:
            return f"{stages} stages cut at {cuts}, {schedule}: {problem or 'other bytes than in one process'}"
    print(f"{model}: {summary.split(';')[0]}; {compared.stdout.strip()}; 2 to {min(4, nodes)} stages equal", flush=True)
    return ""


def main():
    models = SMALL + (LARGE if given.all else []) + ([f"hf:{given.minilm}"] if given.minilm else [])
    for model in models:
        with tempfile.TemporaryDirectory() as work:
            problem = check(model, work)
        if problem:
            failures.append(f"{model}: {problem}")
    for name, expected in REFUSED.items():
        with tempfile.TemporaryDirectory() as work:
            path = os.path.join(given.source, "tests/integration/reference", f"{ZOO}:{name}")
            done = run([given.python, os.path.join(scripts, "export_graph.py"), path, "--out", work])
            line = done.stderr.strip()
            if done.returncode == 0 or "\n" in line or expected not in line or f"{ZOO}:" not in line.replace(f"{ZOO}:{name}", ""):
                failures.append(f"{name}: expected a refusal in one line with '{expected}' and a line of {ZOO}, found '{line}'")
            else:
                print(line.split(": ", 2)[-1], flush=True)
    if failures:
        sys.exit("\n".join(failures))


main()
