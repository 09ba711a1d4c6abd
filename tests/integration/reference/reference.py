"""Trains as ecopipe-train --single does, in plain PyTorch, and compares every loss; of a model of zoo_models.py also what
training made of each tensor.

Usage: reference.py MODEL INITIAL.safetensors RUN OPTIMIZER RATE DECAY STEPS LIMIT [TRAIN.safetensors]
MODEL is lenet5, one of zoo_models.py or a TorchScript file; RUN has metrics.jsonl and model.safetensors. Samples are those of
Fashion-MNIST or of the file given, in their order (--no-shuffle)."""

import gzip
import json
import struct
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import zoo_models
from reference_files import read_safetensors

DATA = "/usr/share/datasets/fashion-mnist"
SEED = 0  # ecopipe-train's default
BATCH, MICRO_BATCHES = 32, 4


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


def keyed_seed(*words):
    """As core/random.h."""
    mask, found = 2**64 - 1, 0
    for word in words:
        turned = word * 0x9E3779B97F4A7C15 & mask
        z = (found ^ (turned << 31 | turned >> 33)) + 0x9E3779B97F4A7C15 & mask
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ z >> 27) * 0x94D049BB133111EB & mask
        found = z ^ z >> 31
    return found


def draw_as_ecopipe(draws, now):
    """Dropout and stochastic depth are keyed by (seed, layer, step, micro-batch)."""
    for module, layer in draws.items():
        module.register_forward_pre_hook(
            lambda *_, layer=layer: torch.manual_seed(keyed_seed(SEED, layer, now["step"], now["micro_batch"])) and None)


def read_samples(file, limit):
    if file:
        tensors = read_safetensors(file[0])
        return tensors["inputs"][:limit], tensors["targets"][:limit]
    images = torch.from_numpy(read_idx("train-images-idx3-ubyte")[:limit].astype(np.float32) / 255).unsqueeze(1)
    return images, torch.from_numpy(read_idx("train-labels-idx1-ubyte")[:limit].astype(np.int64))


def compare_movement(ours, before, trained):
    """All gradients at once: how far each tensor went, and how far apart the two ended. What hardly moves (a key's bias, whose
    gradient is 0 but for rounding) may end anywhere near."""
    worst = 0.0
    for name, tensor in ours.items():
        moved = (tensor - before[name]).double().norm().item()
        apart = (tensor - trained[name]).double().norm().item()
        slack = 1e-7 * tensor.numel()**0.5
        worst = max(worst, (apart - slack) / (moved + 1e-30))
        assert apart <= 1e-3 * moved + slack, f"{name}: moved by {moved}, ends {apart} from ecopipe's"
    print(f"every tensor moved as ecopipe's, to {max(worst, 0):.1e}")


def main():
    model_name, initial, run, optimizer_name, rate, decay, steps, limit = sys.argv[1:9]
    rate, decay, steps, limit = float(rate), float(decay), int(steps), int(limit)
    torch.set_num_threads(1)
    images, labels = read_samples(sys.argv[9:], limit)
    now = {"step": 0, "micro_batch": 0}
    if model_name in zoo_models.NAMES:
        model, draws = zoo_models.build(model_name, int(labels.max()) + 1)
        model.train()
        if model_name not in zoo_models.TOKENS:
            images = images.expand(-1, 3, -1, -1)  # as for any model of three channels
        draw_as_ecopipe(draws, now)
    else:
        model = build(model_name).train()
        for module in model.modules():
            if "Dropout" in getattr(module, "original_name", type(module).__name__):
                module.eval()
    model.load_state_dict(read_safetensors(initial))
    if optimizer_name == "adam":
        optimizer = torch.optim.Adam(model.parameters(), lr=rate, weight_decay=decay)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=decay)
    expected = [json.loads(line) for line in open(f"{run}/metrics.jsonl")]
    expected = [line["loss"] for line in expected if "step" in line]
    assert len(expected) == steps, f"{len(expected)} steps in the metrics, expected {steps}"
    per_epoch = (limit + BATCH - 1) // BATCH
    for step in range(steps):
        first = step % per_epoch * BATCH
        x, y = images[first:first + BATCH], labels[first:first + BATCH]
        optimizer.zero_grad()
        loss = 0.0
        for index, part in enumerate(torch.tensor_split(torch.arange(len(y)), MICRO_BATCHES)):
            now.update(step=step, micro_batch=index)
            # The optimiser of TorchScript would interpret fused kernels on the CPU, and takes minutes for it.
            with torch.jit.optimized_execution(False):
                value = F.cross_entropy(model(x[part]), y[part], reduction="sum") / len(y)
                value.backward()
            loss += value.item()
        optimizer.step()
        error = abs(loss - expected[step]) / abs(loss)
        print(f"step {step + 1}: {loss:.7f} {expected[step]:.7f} {error:.2e}")
        assert error < 1e-4, f"step {step + 1}: PyTorch's loss is {loss}, ecopipe's {expected[step]}"
    if model_name in zoo_models.NAMES:
        compare_movement(model.state_dict(), read_safetensors(initial), read_safetensors(f"{run}/model.safetensors"))


main()
