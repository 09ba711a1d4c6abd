"""Trains as ecopipe-train --single does, in plain PyTorch, and compares every loss.

Usage: reference.py MODEL INITIAL.safetensors METRICS.jsonl OPTIMIZER STEPS BATCH MICRO_BATCHES LIMIT
MODEL is lenet5, no_dropout_cnn or a TorchScript file. Files are read in file order (--no-shuffle)."""

import gzip
import json
import struct
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from reference_files import read_safetensors

DATA = "/usr/share/datasets/fashion-mnist"


def read_idx(name):
    with gzip.open(f"{DATA}/{name}.gz") as file:
        raw = file.read()
    rank = raw[3]
    shape = struct.unpack(f">{rank}I", raw[4:4 + 4 * rank])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def build(name):
    if name == "lenet5":
        return nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(),
            nn.Linear(84, 10))
    return torch.jit.load(name)


def main():
    model_name, initial, metrics, optimizer_name, steps, batch, micro, limit = sys.argv[1:9]
    steps, batch, micro, limit = int(steps), int(batch), int(micro), int(limit)
    torch.set_num_threads(1)
    model = build(model_name)
    model.load_state_dict(read_safetensors(initial))
    model.train()
    for module in model.modules():
        if "Dropout" in getattr(module, "original_name", type(module).__name__):
            module.eval()
    images = torch.from_numpy(read_idx("train-images-idx3-ubyte")[:limit].astype(np.float32) / 255).unsqueeze(1)
    labels = torch.from_numpy(read_idx("train-labels-idx1-ubyte")[:limit].astype(np.int64))
    if optimizer_name == "adam":
        optimizer = torch.optim.Adam(model.parameters(), lr=0.001, weight_decay=0.001)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=0.001)
    expected = [json.loads(line) for line in open(metrics)]
    expected = [line["loss"] for line in expected if "step" in line]
    assert len(expected) == steps, f"{len(expected)} steps in the metrics, expected {steps}"
    per_epoch = (limit + batch - 1) // batch
    for step in range(steps):
        first = step % per_epoch * batch
        x, y = images[first:first + batch], labels[first:first + batch]
        optimizer.zero_grad()
        loss = 0.0
        for part in torch.tensor_split(torch.arange(len(y)), min(micro, len(y))):
            # The optimiser of TorchScript would interpret fused kernels on the CPU, and takes minutes for it.
            with torch.jit.optimized_execution(False):
                value = F.cross_entropy(model(x[part]), y[part], reduction="sum") / len(y)
                value.backward()
            loss += value.item()
        optimizer.step()
        error = abs(loss - expected[step]) / abs(loss)
        print(f"step {step + 1}: {loss:.7f} {expected[step]:.7f} {error:.2e}")
        assert error < 1e-4, f"step {step + 1}: PyTorch's loss is {loss}, ecopipe's {expected[step]}"


main()
