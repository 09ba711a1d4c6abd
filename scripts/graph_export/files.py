"""graph.json and safetensors, written and read."""

import json
import math
import struct

import torch

from torch_files import DTYPE_NAMES

from .ir import Batch, ByMode, DType, Input, MemoryFormat, Result, Tensor

FORMAT = "ecopipe-graph/1"


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.dim()
                       else tensor.reshape(1).view(torch.uint8).numpy().tobytes())


def literal(value):
    if isinstance(value, Batch):
        return {"batch": value.times}
    if isinstance(value, DType):
        return {"dtype": value.name}
    if isinstance(value, MemoryFormat):
        return {"memory_format": value.name}
    if isinstance(value, ByMode):
        return {"training": literal(value.training), "evaluation": literal(value.evaluation)}
    if isinstance(value, str):
        return {"string": value}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


def size_text(size):
    if isinstance(size, Batch):
        return "B" if size.times == 1 else f"{size.times}B"
    return size


def trained_results(program):
    """The results that a parameter has a part in, frozen or not: for the others no gradient ever comes back."""
    found = set()
    for index, op in enumerate(program.ops):
        if any(r in found or isinstance(r, Tensor) and r.name in program.parameters for r in op.references()):
            found.update(Result(index, output) for output in range(len(op.outputs)))
    return found


def graph_json(grouped, made_by, target, proof):
    program = grouped.program
    last = grouped.value_names[program.outputs[0]]
    nodes = []
    for number, (start, end, taken, made) in enumerate(grouped.nodes):
        local, tensors, ops = {}, [], []
        outer = {r: grouped.value_names[r] for r in taken}

        def text(argument):
            if isinstance(argument, list):
                return [text(element) for element in argument]
            if isinstance(argument, Tensor):
                if argument.name not in tensors:
                    tensors.append(argument.name)
                return "@" + argument.name
            if isinstance(argument, (Input, Result)):
                return "%" + (outer[argument] if argument in outer else str(local[argument]))
            return literal(argument)
        for index in range(start, end):
            op = program.ops[index]
            arguments = [text(a) for a in op.args]
            keywords = {k: text(v) for k, v in op.kwargs.items()}
            for output in range(len(op.outputs)):
                local[Result(index, output)] = len(local)
            ops.append([op.name, arguments, keywords, len(op.outputs)])
        nodes.append({"name": grouped.names[number], "kind": grouped.kind(number), "in": [outer[r] for r in taken],
                      "out": [[grouped.value_names[r], local[r]] for r in made], "tensors": tensors, "ops": ops})

    def facts(meta):
        return {"dtype": meta.dtype, "shape": [size_text(s) for s in meta.shape]}
    floating = ("F32", "F64", "F16", "BF16")
    trained = {grouped.value_names[r] for r in trained_results(program) if r in grouped.value_names}
    tensors = {name: {"dtype": DTYPE_NAMES[t.dtype], "shape": list(t.shape),
                      "kind": "parameter" if name in program.parameters else "constant" if name in program.constants else "buffer",
                      **({"trainable": False} if name in program.frozen else {})}
               for name, t in program.tensors.items()}
    return {"format": FORMAT, "made_by": made_by, "aten": target,
            "inputs": [{"name": name, **facts(meta)} for name, meta in program.inputs.items()],
            "values": {name: {**facts(meta), "gradient": meta.dtype in floating and name in trained}
                       for name, meta in grouped.metas.items() if name not in program.inputs},
            "nodes": nodes, "outputs": [last], "tensors": tensors, "tied": program.tied, "proof": proof}


def write_graph(path, graph):
    """One node a line, so that people can read it and diff it."""
    lines = []
    for key, value in graph.items():
        if key == "nodes":
            body = ",\n  ".join(json.dumps(node, separators=(",", ":")) for node in value)
            lines.append(f'"nodes":[\n  {body}]')
        elif key in ("values", "tensors"):
            body = ",\n  ".join(f"{json.dumps(k)}:{json.dumps(v, separators=(',', ':'))}" for k, v in value.items())
            lines.append(f'"{key}":{{\n  {body}}}')
        else:
            lines.append(f"{json.dumps(key)}:{json.dumps(value, separators=(',', ':'))}")
    with open(path, "w", encoding="utf-8") as file:
        file.write("{" + ",\n".join(lines) + "}\n")
