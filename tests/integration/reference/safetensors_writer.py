"""Writes tensors as the safetensors format has them."""

import json
import os
import struct

import numpy as np

NAMES = {"float16": "F16", "float32": "F32", "float64": "F64", "int64": "I64", "int32": "I32", "uint8": "U8"}


def save(path, **tensors):
    head, at = {}, 0
    for name, array in tensors.items():
        head[name] = {"dtype": NAMES[str(array.dtype)], "shape": array.shape, "data_offsets": [at, at := at + array.nbytes]}
    text = json.dumps(head).encode()
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())
