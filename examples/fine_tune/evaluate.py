"""Loads a TorchScript model back into Python and tests it on all of Fashion-MNIST.

    evaluate.py MODEL.pt LEAST    exits with 1 when the accuracy is below LEAST percent
"""
import sys

import torch

from pretrain import accuracy, read


def main():
    torch.set_num_threads(1)
    percent = 100 * accuracy(torch.jit.load(sys.argv[1]), *read("t10k"))
    print(f"{sys.argv[1]} in Python: {percent:.2f} % of all ten kinds")
    sys.exit(percent < float(sys.argv[2]))


if __name__ == "__main__":
    main()
