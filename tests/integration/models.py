"""Writes the TorchScript models that the integration tests train. Usage: models.py DIRECTORY"""

import sys

import torch
from torch import nn


class Permute(nn.Module):
    """Hands on a strided tensor, as a channels-last model would."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1)


class PermuteBack(nn.Module):
    def forward(self, x):
        return x.permute(0, 3, 1, 2)


class ChannelsLast(nn.Module):
    def forward(self, x):
        return x.contiguous(memory_format=torch.channels_last)


def norm_dropout():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Dropout(0.25),
        nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(12 * 49, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10))


def strided():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), Permute(), nn.Linear(6, 8), nn.ReLU(), PermuteBack(), nn.Conv2d(8, 8, 3, groups=2),
        ChannelsLast(), nn.GroupNorm(2, 8), nn.Hardswish(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(128, 10))


def activations():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 64), nn.Sigmoid(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 64),
        nn.Hardswish(), nn.Linear(64, 10))


if __name__ == "__main__":
    torch.manual_seed(0)
    for build in (norm_dropout, strided, activations):
        torch.jit.script(build().train()).save(f"{sys.argv[1]}/{build.__name__}.pt")
