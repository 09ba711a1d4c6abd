"""Where the exporters take a model from: a function in a file of the user's, or torchvision; and a sample to run it on."""

import importlib.util
import os
import sys

import torch

from torch_files import fail, one_line


def from_file(name):
    """What FILE.py:FUNCTION returns. The file may import its neighbours."""
    path, function = name.rsplit(":", 1)
    if not os.path.exists(path):
        fail(f"{path}: there is no such file")
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    spec = importlib.util.spec_from_file_location("exported_model", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["exported_model"] = module  # torch.jit.script looks up sources there
    try:
        spec.loader.exec_module(module)
        return getattr(module, function)()
    except Exception as error:  # the user's own code may raise anything
        fail(f"{name}: {type(error).__name__}: {one_line(error)}")


def from_torchvision(name, **arguments):
    try:
        import torchvision
    except ImportError:
        fail(f"{name}: needs torchvision (python3-torchvision of the system, or pip install torchvision), or give FILE.py:FUNCTION")
    constructor = getattr(torchvision.models, name, None)
    if not callable(constructor) or isinstance(constructor, type):
        fail(f"{name}: is no model of torchvision {torchvision.__version__}")
    return constructor(**arguments)


def sample(arguments, batch):
    """`batch` samples as --tokens or --input say, the same in every run."""
    generator = torch.Generator().manual_seed(1)
    if arguments.tokens:
        length, vocabulary = positive_numbers(arguments.tokens, ",", 2, "--tokens", "LENGTH,VOCABULARY")
        return torch.randint(0, vocabulary, (batch, length), generator=generator)
    return torch.rand([batch] + positive_numbers(arguments.input, "x", 0, "--input", "a sample's shape such as 3x64x64"),
                      generator=generator)


def positive_numbers(text, separator, count, flag, form):
    parts = text.split(separator)
    if not all(part.isdecimal() and int(part) > 0 for part in parts) or (count and len(parts) != count):
        fail(f"{flag}: expected {form}, found '{text}'")
    return [int(part) for part in parts]
