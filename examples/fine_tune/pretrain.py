"""Trains a small nn.Sequential on the first five kinds of clothes in Fashion-MNIST and saves it as TorchScript.

    pretrain.py MODEL.pt
"""
import gzip
import sys

import numpy
import torch
from torch import nn

DATA = "/usr/share/datasets/fashion-mnist"  # of the Debian package dataset-fashion-mnist


def read(split):
    """Images scaled to [0, 1], as ecopipe scales them, and labels."""
    with gzip.open(f"{DATA}/{split}-images-idx3-ubyte.gz") as file:
        images = numpy.frombuffer(file.read(), numpy.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(f"{DATA}/{split}-labels-idx1-ubyte.gz") as file:
        labels = numpy.frombuffer(file.read(), numpy.uint8, offset=8)
    return torch.from_numpy(images.astype(numpy.float32) / 255), torch.from_numpy(labels.astype(numpy.int64))


def make_model():
    """Each child of the Sequential is a layer to ecopipe: a place where a pipeline can be cut."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.25), nn.Linear(32 * 7 * 7, 64), nn.ReLU(), nn.Linear(64, 10))


def accuracy(model, images, labels):
    model.eval()
    with torch.no_grad():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(500), labels.split(500)))
    return right / len(labels)


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images, labels = read("train")
    images, labels = images[labels < 5][:5000], labels[labels < 5][:5000]
    model = make_model()
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for x, y in zip(images.split(50), labels.split(50)):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    print(f"pre-trained on five kinds: {100 * accuracy(model, *read('t10k')):.2f} % of all ten")
    torch.jit.script(model).save(sys.argv[1])


if __name__ == "__main__":
    main()
