"""Files of tensors, and refusals in one line, for the scripts here that use PyTorch."""

import fnmatch
import json
import os
import struct
import sys

import torch

DTYPES = {"F32": torch.float32, "F64": torch.float64, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
          "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def fail(message):
    sys.exit(f"{os.path.basename(sys.argv[0])}: {message}")


def one_line(error):
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def read_safetensors(path):
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except OSError as error:
        fail(f"{path}: {error.strerror}")
    try:
        size = struct.unpack("<Q", raw[:8])[0]
        header = json.loads(raw[8:8 + size])
        header.pop("__metadata__", None)
        tensors = {}
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            data = bytearray(raw[8 + size + begin:8 + size + end])
            dtype = DTYPES[entry["dtype"]]
            tensors[name] = torch.frombuffer(data, dtype=dtype).reshape(entry["shape"]) if data else torch.empty(
                entry["shape"], dtype=dtype)
        return tensors
    except (struct.error, ValueError, KeyError, TypeError) as error:
        fail(f"{path}: is no safetensors file: {error}")


def read_state(path):
    if path.endswith(".safetensors"):
        return read_safetensors(path)
    try:
        state = torch.load(path, map_location="cpu")
    except Exception as error:  # of a damaged file anything, from the unpickler or the archive
        fail(f"{path}: cannot be read: {one_line(error)}")
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        fail(f"{path}: is no state dict")
    return state


def load_state(model, path, left_out):
    """A file's tensors into the model, but for those that the comma-separated patterns of `left_out` name."""
    given = read_state(path)
    own = model.state_dict()
    patterns = [pattern for pattern in left_out.split(",") if pattern]
    for pattern in patterns:
        if not fnmatch.filter(own, pattern):
            fail(f"--except {pattern}: is no tensor of the model")
    wanted = [name for name in own if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    for name in wanted:
        if name not in given:
            fail(f"{path}: {name} is missing")
        if given[name].shape != own[name].shape:
            fail(f"{path}: {name}: expected shape {list(own[name].shape)}, found {list(given[name].shape)}")
    model.load_state_dict({name: given[name] for name in wanted}, strict=False)
