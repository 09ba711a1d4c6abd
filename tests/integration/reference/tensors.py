"""Writes the data sets that the integration tests train on: DIR/{text,tags,numbers,answers}/{train,test}.safetensors.
Usage: tensors.py DIR"""

import sys

import numpy as np

from safetensors_writer import save

random = np.random.default_rng(3)
for split, count in (("train", 90), ("test", 30)):
    tokens = random.integers(0, 20, (count, 7))
    numbers = random.normal(size=(count, 8)).astype(np.float32)
    save(f"{sys.argv[1]}/text/{split}.safetensors", inputs=tokens.astype(np.int64),
         targets=(tokens.sum(1) % 3).astype(np.int64))
    save(f"{sys.argv[1]}/tags/{split}.safetensors", inputs=tokens.astype(np.int32), targets=(tokens % 4).astype(np.uint8))
    save(f"{sys.argv[1]}/numbers/{split}.safetensors", inputs=numbers,
         targets=np.stack([numbers[:, :4].sum(1), numbers[:, 0] * numbers[:, 1]], 1))
    save(f"{sys.argv[1]}/answers/{split}.safetensors", inputs=numbers, targets=(numbers.sum(1) > 0).astype(np.int64))
