"""Trains as ecopipe-train --single does, with PyTorch's own losses, optimisers, schedulers and clipping, and compares each
step's loss, learning rate and gradient norm. Samples come in file order (--no-shuffle).

Usage: learning_reference.py MODEL.pt TRAIN.safetensors METRICS.jsonl LOSS OPTIMIZER SCHEDULE STEPS [FROZEN...]
FROZEN are modules whose parameters are not trained and that are in evaluation mode. SCHEDULE is cosine (with 4 steps of warm-up), step (every 3 steps, times 0.5) or constant."""

import json
import sys
import warnings

import torch
from torch import nn
from torch.optim import lr_scheduler

from reference_files import read_safetensors

BATCH, MICRO_BATCHES, LR, CLIP, DECAY = 16, 3, 0.02, 0.1, 0.05


def close(name, step, expected, found):
    assert abs(expected - found) <= 1e-4 * abs(expected) + 1e-9, f"step {step}: {name}: PyTorch {expected}, ecopipe {found}"


class Adafactor(torch.optim.Optimizer):
    """torch.optim.Adafactor, which came with 2.5, for parameters of one and two dimensions."""

    def __init__(self, parameters, lr, weight_decay):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})
        self.steps = 0

    @torch.no_grad()
    def step(self):
        self.steps += 1
        weight, epsilon = self.steps**-0.8, torch.finfo(torch.float32).eps
        for group in self.param_groups:
            for parameter in group["params"]:
                squares, state = parameter.grad.square(), self.state[parameter]
                means = [squares.mean(-1, keepdim=True), squares.mean(0, keepdim=True)] if squares.dim() == 2 else [squares]
                for i, mean in enumerate(means):
                    state.setdefault(i, torch.zeros_like(mean)).lerp_(mean, weight)
                variance = state[0] @ state[1] / state[0].mean().clamp(min=epsilon) if squares.dim() == 2 else state[0]
                update = parameter.grad / variance.clamp(min=epsilon**2).sqrt()
                size = max(1e-3, parameter.square().mean().sqrt().item()) * min(group["lr"], self.steps**-0.5)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(update, alpha=size / max(1.0, update.square().mean().sqrt().item()))


def main():
    model_path, data, metrics, loss_name, optimizer_name, schedule, steps = sys.argv[1:8]
    frozen = sys.argv[8:]
    steps = int(steps)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch._C._jit_set_profiling_executor(False)
    tensors = read_safetensors(data)
    inputs, targets = tensors["inputs"], tensors["targets"]
    if not inputs.is_floating_point():
        inputs = inputs.long()
    model = torch.jit.load(model_path).train()
    for module in model.modules():
        if "Dropout" in getattr(module, "original_name", ""):
            module.eval()
    for name, module in model.named_children():
        if name in frozen:
            module.eval()
            for parameter in module.parameters():
                parameter.requires_grad_(False)
    loss_of = {"cross_entropy": lambda x, y: nn.functional.cross_entropy(x.flatten(0, -2), y.long().flatten(), reduction="sum"),
               "mse": nn.MSELoss(reduction="sum"),
               "bce": lambda x, y: nn.functional.binary_cross_entropy_with_logits(x[:, 0], y.float(), reduction="sum")}[loss_name]
    optimizer = {"sgd": lambda p: torch.optim.SGD(p, LR, momentum=0.9, weight_decay=DECAY),
                 "adam": lambda p: torch.optim.Adam(p, LR, weight_decay=DECAY),
                 "adafactor": lambda p: getattr(torch.optim, "Adafactor", Adafactor)(p, lr=LR, weight_decay=DECAY),
                 "adamw": lambda p: torch.optim.AdamW(p, LR, weight_decay=DECAY)}[optimizer_name](
                     [parameter for parameter in model.parameters() if parameter.requires_grad])
    if schedule == "cosine":
        warm = lr_scheduler.LinearLR(optimizer, 1 / 4, total_iters=3)
        rest = lr_scheduler.CosineAnnealingLR(optimizer, steps - 4)
        scheduler = lr_scheduler.SequentialLR(optimizer, [warm, rest], [4])
    else:
        scheduler = lr_scheduler.StepLR(optimizer, 3, 0.5 if schedule == "step" else 1.0)
    lines = [json.loads(line) for line in open(metrics)]
    lines = [line for line in lines if "step" in line]
    assert len(lines) == steps, f"{len(lines)} steps in the metrics, expected {steps}"
    clipped = 0
    whole = len(inputs) // BATCH
    for step in range(steps):
        first = step % whole * BATCH
        x, y = inputs[first:first + BATCH], targets[first:first + BATCH]
        optimizer.zero_grad()
        total = 0.0
        for part in torch.tensor_split(torch.arange(BATCH), MICRO_BATCHES):
            value = loss_of(model(x[part]), y[part]) / y.numel()
            value.backward()
            total += value.item()
        norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP).item()
        clipped += norm > CLIP
        close("loss", step + 1, total, lines[step]["loss"])
        close("gradient norm", step + 1, norm, lines[step]["gradient_norm"])
        close("learning rate", step + 1, optimizer.param_groups[0]["lr"], lines[step]["lr"])
        optimizer.step()
        scheduler.step()
    assert 0 < clipped, "no step was clipped: the comparison shows nothing of it"


main()
