"""Runs a captured program in Python, as ecopipe runs it: what the proof holds against the original."""

import torch

from torch_files import DTYPES

from . import operators
from .capture import MEMORY_FORMATS
from .ir import Batch, ByMode, DType, Input, MemoryFormat, Result, Tensor

FORMATS = {name: memory_format for memory_format, name in MEMORY_FORMATS.items()}


def stochastic_depth(x, p, mode):
    """As torchvision.ops.stochastic_depth."""
    if p == 0.0:
        return x
    survival = 1.0 - p
    size = [x.shape[0] if mode == "row" else 1] + [1] * (x.dim() - 1)
    noise = torch.empty(size, dtype=x.dtype).bernoulli_(survival)
    if survival > 0.0:
        noise.div_(survival)
    return x * noise


def ours(name, arguments):
    if name == "ecopipe::stochastic_depth":
        return stochastic_depth(*arguments)
    x, p = arguments
    if p == 0.0:
        return x
    return torch.feature_dropout(x, p, True) if name == "ecopipe::dropout_channels" else torch.dropout(x, p, True)


def overload(name):
    space, rest = name.split("::")
    plain, _, which = rest.partition(".")
    return getattr(getattr(getattr(torch.ops, space), plain), which or "default")


def run(program, tensors, inputs, training, nodes=None):
    """The outputs. With `nodes`, values are made contiguous at the boundaries, as a pipeline makes them."""
    batch = next(iter(inputs.values())).shape[0]
    values = {Input(name): tensor for name, tensor in inputs.items()}
    boundary = {r for _, _, _, made in (nodes or []) for r in made}

    def resolved(argument):
        if isinstance(argument, list):
            return [resolved(element) for element in argument]
        if isinstance(argument, Tensor):
            return tensors[argument.name]
        if isinstance(argument, (Input, Result)):
            return values[argument]
        if isinstance(argument, Batch):
            return argument.times * batch
        if isinstance(argument, DType):
            return DTYPES[argument.name]
        if isinstance(argument, MemoryFormat):
            return FORMATS[argument.name]
        if isinstance(argument, ByMode):
            return argument.training if training else argument.evaluation
        return argument
    for index, op in enumerate(program.ops):
        arguments = [resolved(a) for a in op.args]
        if op.name in operators.DRAWS:
            result = ours(op.name, arguments)
        else:
            result = overload(op.name)(*arguments, **{k: resolved(v) for k, v in op.kwargs.items()})
        results = result if isinstance(result, (list, tuple)) else [result]
        for output, value in enumerate(results):
            reference = Result(index, output)
            values[reference] = value.contiguous() if reference in boundary else value
    return [values[r] for r in program.outputs]
