"""Groups operators into nodes, between any two of which a pipeline may be cut.

A boundary stands between two submodules, nowhere inside of one that does the work of one; and inside a module only where no
more bytes cross than before or after the whole of it: a residual block, whose inside carries the skip beside its own values,
stays whole, while a densely connected block, whose inside carries no more than its end, does not. Nodes with next to no work
join a neighbour."""

import collections
import math

from torch_files import DTYPE_NAMES

from .ir import Batch, Input, Meta, Refusal, Result, Tensor

BYTES = {"F32": 4, "F64": 8, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
LEAST_WORK = 1 / 200  # of the model's, that a node should have
LEAST_WEIGHTS = 1 / 50  # or of its parameters
VALUES_MOST = 64  # that may cross a boundary
SMALL_BYTES = 64  # a sample; what weighs nothing beside activations


def bytes_of(meta):
    """Of one sample."""
    return meta.elements(1) * BYTES[meta.dtype]


def work_of(op, metas):
    """Multiplications of one sample, roughly: what makes one operator cost more than another."""
    outputs = sum(meta.elements(1) for meta in op.outputs)
    plain = op.name.split("::")[1].split(".")[0]
    if plain.startswith("conv") and len(op.args) > 1:
        weight = metas(op.args[1]).shape
        if plain.startswith("conv_transpose"):
            return metas(op.args[0]).elements(1) * math.prod(weight[1:])
        return outputs * math.prod(weight[1:])
    if plain in ("linear", "matmul", "mm", "bmm"):
        return outputs * (metas(op.args[0]).elements(1) // max(1, math.prod(
            s.times if isinstance(s, Batch) else s for s in metas(op.args[0]).shape[:-1])))
    if plain in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
        steps = metas(op.args[0]).elements(1) // metas(op.args[0]).shape[-1]
        return steps * sum(metas(t).elements(1) for t in op.args[2] if isinstance(t, Tensor))
    return outputs


class Flow:
    """Where each value is made and last used, and so what crosses each position (before operator `position`)."""

    def __init__(self, program):
        self.program = program
        self.last_use = {}
        self.made = {}
        for name in program.inputs:
            self.made[Input(name)] = -1
        for index, op in enumerate(program.ops):
            for output in range(len(op.outputs)):
                self.made[Result(index, output)] = index
            for reference in op.references():
                if not isinstance(reference, Tensor):
                    self.last_use[reference] = index
        for reference in program.outputs:
            self.last_use[reference] = len(program.ops)

    def meta(self, reference):
        if isinstance(reference, Input):
            return self.program.inputs[reference.name]
        if isinstance(reference, Result):
            return self.program.ops[reference.op].outputs[reference.output]
        tensor = self.program.tensors[reference.name]
        return Meta(DTYPE_NAMES[tensor.dtype], tuple(tensor.shape))

    def crossing(self, position):
        return [r for r, last in self.last_use.items() if self.made[r] < position <= last]


def boundaries(program):
    """The positions (indices of operators) at which nodes begin, 0 first."""
    flow = Flow(program)
    count = len(program.ops)
    weight = [0] * (count + 1)  # bytes that cross before each operator
    number = [0] * (count + 1)
    for reference, last in flow.last_use.items():
        for position in range(flow.made[reference] + 1, min(last, count) + 1):
            weight[position] += bytes_of(flow.meta(reference))
            number[position] += 1
    work = [work_of(op, flow.meta) for op in program.ops]
    sums = [0]
    for amount in work:
        sums.append(sums[-1] + amount)

    found = set()

    def divide(begin, end, depth, limit):
        """Operators begin..end-1 stand in one module at `depth` - 1; divide where its submodules begin and end, but for places
        where more than `limit` bytes cross."""
        runs, start = [], begin
        for position in range(begin + 1, end + 1):
            key = program.ops[start].path[depth:depth + 1]
            if position == end or program.ops[position].path[depth:depth + 1] != key:
                runs.append((start, position))
                start = position
        for first, last in runs[1:]:
            if number[first] <= VALUES_MOST and weight[first] <= limit:
                found.add(first)
        for first, last in runs:
            if program.ops[first].path[depth:depth + 1] and last - first > 1:
                outside = max(weight[first], weight[last] if last < count else 0)
                divide(first, last, depth + 1, min(limit, outside + SMALL_BYTES) if last - first < count else limit)

    divide(0, count, 0, math.inf)
    starts = sorted(found | {0})
    # What does next to nothing, and holds as little, joins the neighbour over whose boundary more crosses.
    least = LEAST_WORK * sums[-1]
    total = sum(t.numel() for t in program.tensors.values())

    def holds(begin, end):
        names = {r.name for op in program.ops[begin:end] for r in op.references() if isinstance(r, Tensor)}
        return sum(program.tensors[name].numel() for name in names)
    changed = True
    while changed and len(starts) > 1:
        changed = False
        for index, start in enumerate(starts):
            end = starts[index + 1] if index + 1 < len(starts) else count
            if sums[end] - sums[start] >= least or holds(start, end) >= LEAST_WEIGHTS * total > 0:
                continue
            if index == 0:
                starts.pop(1)
            elif index + 1 == len(starts) or weight[start] >= weight[end]:
                starts.pop(index)
            else:
                starts.pop(index + 1)
            changed = True
            break
    return starts


def starts_named(program, names):
    """The positions where the modules of `names` begin, as --nodes gives them."""
    starts = {0}
    for name in names:
        at = next((i for i, op in enumerate(program.ops) if any(p == name or p.startswith(name + ".") for p in op.path)), None)
        if at is None:
            raise Refusal(f"--nodes: {name} is no module of the model")
        starts.add(at)
    return sorted(starts)


class Grouped:
    """The nodes: which operators, which values come in and go out, under their names."""

    def __init__(self, program, starts):
        self.program = program
        flow = Flow(program)
        ends = starts[1:] + [len(program.ops)]
        node_of = {}
        for number, (start, end) in enumerate(zip(starts, ends)):
            for index in range(start, end):
                node_of[index] = number
        self.paths = self.module_paths(program, list(zip(starts, ends)), [work_of(op, flow.meta) for op in program.ops])
        self.names = self.node_names([program.ops[s:e] for s, e in zip(starts, ends)])
        users = collections.defaultdict(set)
        for index, op in enumerate(program.ops):
            for reference in op.references():
                if not isinstance(reference, Tensor):
                    users[reference].add(node_of[index])
        for reference in program.outputs:
            users[reference].add(len(starts))
        self.value_names, self.metas = {}, {}
        for name, meta in program.inputs.items():
            self.value_names[Input(name)] = name
            self.metas[name] = meta
        made = collections.defaultdict(list)
        for reference in sorted((r for r in users if isinstance(r, Result)), key=lambda r: (r.op, r.output)):
            if any(user > node_of[reference.op] for user in users[reference]):
                made[node_of[reference.op]].append(reference)
        for number, references in made.items():
            for k, reference in enumerate(references):
                name = self.names[number]
                # Of a Sequential they are numbers, which are operators' in the file.
                if len(references) > 1 or name.isdigit() or name in program.inputs:
                    name += f":{k}"
                self.value_names[reference] = name
                self.metas[name] = flow.meta(reference)
        self.nodes = []
        for number, (start, end) in enumerate(zip(starts, ends)):
            taken = [r for r, by in users.items() if number in by and (isinstance(r, Input) or node_of[r.op] < number)]
            taken.sort(key=lambda r: (flow.made[r], getattr(r, "output", 0), getattr(r, "name", "")))
            self.nodes.append((start, end, taken, made[number]))

    @staticmethod
    def module_paths(program, ranges, work):
        """Of each node the module that it is known by: that of its most costly operator, as far out as it is the node's alone."""
        spans = {}
        for index, op in enumerate(program.ops):
            for path in op.path:
                first, _ = spans.get(path, (index, index))
                spans[path] = (first, index)
        found = []
        for start, end in ranges:
            heaviest = max(range(start, end), key=lambda i: work[i] if program.ops[i].path else -1)
            path = program.ops[heaviest].path
            own = [p for p in path if start <= spans[p][0] and spans[p][1] < end]
            found.append(own[0] if own else path[-1] if path else "")
        return found

    def node_names(self, groups):
        names, seen = [], collections.Counter()
        for path, group in zip(self.paths, groups):
            name = path or group[0].name.split("::")[1].split(".")[0]
            seen[name] += 1
            names.append(name if seen[name] == 1 else f"{name}~{seen[name]}")
        return names

    def kind(self, number):
        return self.program.types.get(self.paths[number], "graph")
