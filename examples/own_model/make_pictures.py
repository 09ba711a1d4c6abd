#!/usr/bin/env python3
"""Writes Fashion-MNIST as a folder of pictures, half of them JPEG, half PNG: DIR/{train,test}/CLASS/NUMBER.jpg|png.

    make_pictures.py DIR [TRAIN_COUNT [TEST_COUNT]]

Needs the Debian packages dataset-fashion-mnist, python3-numpy and python3-pil."""

import gzip
import os
import struct
import sys

import numpy as np
from PIL import Image

SOURCE = "/usr/share/datasets/fashion-mnist"
CLASSES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]


def read_idx(name):
    with gzip.open(f"{SOURCE}/{name}.gz") as file:
        raw = file.read()
    rank = raw[3]
    shape = struct.unpack(f">{rank}I", raw[4:4 + 4 * rank])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def main():
    directory = sys.argv[1]
    counts = [int(count) for count in sys.argv[2:]] + [2000, 400][len(sys.argv[2:]):]
    for split, prefix, count in (("train", "train", counts[0]), ("test", "t10k", counts[1])):
        images, labels = read_idx(f"{prefix}-images-idx3-ubyte"), read_idx(f"{prefix}-labels-idx1-ubyte")
        for name in CLASSES:
            os.makedirs(f"{directory}/{split}/{name}", exist_ok=True)
        for i in range(count):
            kind = "jpg" if i % 2 else "png"
            Image.fromarray(images[i]).save(f"{directory}/{split}/{CLASSES[labels[i]]}/{i:05}.{kind}")


main()
