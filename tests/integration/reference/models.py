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


class Last(nn.Module):
    """A GRU's output at the end of the text."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.gru = nn.GRU(inputs, outputs, batch_first=True)

    def forward(self, x):
        return self.gru(x)[0][:, -1]


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, dropout=0.1, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        return self.norm(x + self.attention(x, x, x, need_weights=False)[0])


def token_gru():
    return nn.Sequential(nn.Embedding(20, 12), nn.Dropout(0.1), Last(12, 16), nn.Linear(16, 3))


def token_tagger():
    return nn.Sequential(nn.Embedding(20, 12), Attention(12), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))


def token_tagger_plain():
    return nn.Sequential(nn.Embedding(20, 12), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))


def regressor():
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 2))


def normed_regressor():
    """Statistics that are not the initial ones."""
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Linear(16, 2))
    for norm in (model[1], model[4]):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    return model


def wide():
    """A weight of 2 MiB."""
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 8192), nn.ReLU(), nn.Linear(8192, 2))


def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 2))


def yes_or_no():
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))


if __name__ == "__main__":
    torch.manual_seed(0)
    for build in (norm_dropout, strided, activations, token_gru, token_tagger, token_tagger_plain, regressor, normed_regressor, wide, narrow, yes_or_no):
        torch.jit.script(build().train()).save(f"{sys.argv[1]}/{build.__name__}.pt")
