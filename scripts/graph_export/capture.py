"""Captures a module with torch.export, in training and in evaluation mode, as one list of plain operators (ir.py).

What differs between the modes must be a literal (batch norm's `training`, dropout's probability) or a dropout that evaluation
leaves out: then both are the same graph, up to a flag that the runner sets."""

import contextlib
import hashlib
import inspect
import io
import operator
import os

import torch

from torch_files import DTYPE_NAMES, one_line

from . import decompose, operators
from .ir import Batch, ByMode, DType, Input, MemoryFormat, Meta, Op, Program, Refusal, Result, Tensor, mapped, references_in

MEMORY_FORMATS = {torch.contiguous_format: "contiguous", torch.preserve_format: "preserve", torch.channels_last: "channels_last",
                  torch.channels_last_3d: "channels_last_3d"}
SKIPPED_KEYWORDS = {"layout", "device", "pin_memory", "non_blocking"}
FACTORIES_LIKE = {"new_zeros", "new_ones", "new_full"}
FACTORIES = {"arange", "eye", "full", "linspace", "ones", "scalar_tensor", "zeros"} | FACTORIES_LIKE


def place_in_user_code(error, near):
    """file:line of the innermost frame of the error's traceback that is in the user's file, or in no library at all."""
    found, fallback = "", ""
    trace = error.__traceback__
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        if near and os.path.abspath(path) == os.path.abspath(near):
            found = f"{path}:{trace.tb_lineno}"
        elif "/torch/" not in path and "graph_export" not in path and "export_graph.py" not in path and not path.startswith("<"):
            fallback = f"{path}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found or fallback


def where_another_batch_fails(model, args, kwargs, near):
    """The line that cannot take three samples, if there is one that says so."""
    def longer(value):
        return torch.cat([value, value[:1]]) if isinstance(value, torch.Tensor) and value.dim() > 0 else value
    try:
        with torch.no_grad():
            model(*[longer(a) for a in args], **{k: longer(v) for k, v in kwargs.items()})
    except Exception as error:  # whatever its operators say
        return place_in_user_code(error, near)
    return near or ""


def exported(model, args, kwargs, shapes, training, near):
    model.train(training)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # it prints graphs beside its exceptions
            return torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch.export raises what it likes
        where = place_in_user_code(error, near)
        text = one_line(error)
        if "data-dependent" in str(error) or "GuardOnDataDependent" in type(error).__name__:
            text = ("what happens depends on values of the data, not on shapes alone: "
                    "express it with torch.where, or leave it out of the model")
        elif "specialized" in str(error) or "Constraints violated" in str(error) or "marked" in str(error):
            text = ("the batch size is not free: somewhere it is fixed to the example's, as in x.view(2, -1); write x.flatten(1) "
                    "or x.view(x.shape[0], -1)")
            where = where_another_batch_fails(model, args, kwargs, near)
        raise Refusal(f"{where + ': ' if where else ''}torch.export: {text}") from error


class Lowering:
    """One exported program to a list of Op."""

    def __init__(self, program, target, near, writes_attention_out):
        self.program = program
        self.target = target
        self.near = near
        self.writes_attention_out = writes_attention_out
        self.ops = []
        self.values = {}  # fx node: reference, literal or list of references
        self.constants = {}
        self.input_names = []
        self.symbol = None
        self.dropped_buffers = set()
        self.folded = {}  # fx node: what it computes, whatever the inputs are
        self.types = {}

    # -- literals

    def size(self, value, what):
        if isinstance(value, int):
            return value
        expression = value.node.expr
        if expression.is_Integer:
            return int(expression)
        symbols = expression.free_symbols
        if len(symbols) == 1:
            (symbol,) = symbols
            self.symbol = self.symbol or symbol
            times = expression / symbol
            times = times.simplify() if hasattr(times, "simplify") else times
            if symbol != self.symbol:
                pass
            elif times.is_Integer and times > 0:
                return Batch(int(times))
            else:
                # Floor divisions of exact multiples, as swin's windows have them: exact for the multiples there are.
                values = [expression.subs(symbol, batch) for batch in (1, 2, 3, 5, 7)]
                if all(v.is_Integer and v % batch == 0 for v, batch in zip(values, (1, 2, 3, 5, 7))):
                    quotients = {int(v) // batch for v, batch in zip(values, (1, 2, 3, 5, 7))}
                    if len(quotients) == 1:
                        return Batch(quotients.pop())
        raise Refusal(f"{what}: a size is {expression}, which is no multiple of the batch size")

    def meta(self, value, what):
        if value.dtype not in DTYPE_NAMES:
            raise Refusal(f"{what}: tensors of {value.dtype} are not known here")
        return Meta(DTYPE_NAMES[value.dtype], tuple(self.size(size, what) for size in value.shape))

    def literal(self, value, where):
        if isinstance(value, torch.fx.Node):
            if value in self.values:
                return self.values[value]
            if isinstance(self.folded.get(value), torch.Tensor):
                return self.constant(self.folded[value])
            meta = value.meta.get("val")
            if isinstance(meta, (int, torch.SymInt)):
                return self.size(meta, where)
            raise Refusal(f"{where}: uses {value.name}, which depends on values of the data")
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, torch.dtype):
            return DType(DTYPE_NAMES[value])
        if isinstance(value, torch.memory_format):
            return MemoryFormat(MEMORY_FORMATS[value])
        if isinstance(value, (torch.device, torch.layout)):
            return None
        if isinstance(value, torch.SymInt):
            return self.size(value, where)
        if isinstance(value, (list, tuple)):
            return [self.literal(element, where) for element in value]
        raise Refusal(f"{where}: an argument of type {type(value).__name__} cannot be kept")

    # -- where

    def where(self, node):
        """The user's line: the innermost frame in the file that the model came from, else the innermost of all."""
        trace = node.meta.get("stack_trace") or ""
        lines = [line.strip() for line in trace.splitlines() if line.strip().startswith("File ")]
        chosen = next((line for line in reversed(lines) if self.near and self.near in line), lines[-1] if lines else "")
        parts = chosen.split('"')
        if len(parts) < 3:
            return node.name
        number = "".join(c for c in parts[2].split(",")[1] if c.isdigit()) if "," in parts[2] else "?"
        return f"{parts[1]}:{number}"

    def path(self, node):
        names = []
        for path, kind in (node.meta.get("nn_module_stack") or {}).values():
            clean = path.removeprefix("L['self'].").removeprefix("L['self']").split("@")[0]
            if clean:
                names.append(clean)
                self.types[clean] = kind.rsplit(".", 1)[-1] if isinstance(kind, str) else kind.__name__
        return tuple(names)

    # -- nodes

    def run(self):
        signature = self.program.graph_signature
        placeholders = [node for node in self.program.graph.nodes if node.op == "placeholder"]
        for node, spec in zip(placeholders, signature.input_specs):
            kind = spec.kind.name
            if kind in ("PARAMETER", "BUFFER"):
                self.values[node] = Tensor(spec.target)
            elif kind == "CONSTANT_TENSOR":
                self.folded[node] = self.program.constants[spec.target].detach().clone()
            elif kind == "USER_INPUT":
                if not isinstance(node.meta.get("val"), torch.Tensor):
                    self.values[node] = node.meta.get("val")
                    continue
                self.values[node] = Input(node.name)
                self.input_names.append((node.name, self.meta(node.meta["val"], f"input {node.name}")))
            else:
                raise Refusal(f"an input of kind {kind} cannot be kept")
        self.lower(self.program.graph_module)
        output = next(node for node in self.program.graph.nodes if node.op == "output")
        specs = [spec for spec in signature.output_specs]
        found = []
        for node, spec in zip(output.args[0], specs):
            if spec.kind.name == "USER_OUTPUT":
                found.append((node, spec))
            elif spec.kind.name == "BUFFER_MUTATION" and not spec.target.endswith("num_batches_tracked"):
                raise Refusal(f"the model changes its buffer {spec.target} in forward; only batch norm's statistics may change")
        return [self.values.get(node) if isinstance(node, torch.fx.Node) else None for node, _ in found]

    def constant(self, tensor):
        """Named by what it holds, so that it has one name in both modes."""
        value = tensor.detach().clone().contiguous()
        bytes_of = value.reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
        name = "constants." + hashlib.sha256(f"{value.dtype}{list(value.shape)}".encode() + bytes_of).hexdigest()[:12]
        self.constants[name] = value
        return Tensor(name)

    def fold(self, node):
        """Computes a node that depends on no input and no parameter now; views and writes into them happen for real."""
        plain = node.target._schema.name.removeprefix("aten::")
        if not node.target._schema.name.startswith("aten::"):
            return False
        likeness = plain in FACTORIES_LIKE  # takes its first argument for its kind alone

        def value_of(argument):
            if isinstance(argument, torch.fx.Node):
                if argument in self.folded:
                    return self.folded[argument]
                known = argument.meta.get("val")
                if isinstance(known, int):
                    return known
                if isinstance(known, torch.SymInt) and known.node.expr.is_Integer:
                    return int(known.node.expr)
                raise KeyError
            if isinstance(argument, torch.SymInt):
                raise KeyError
            if isinstance(argument, (list, tuple)):
                return [value_of(element) for element in argument]
            return argument
        tensors = [a for a in node.all_input_nodes if isinstance(a.meta.get("val"), torch.Tensor)]
        if not tensors and plain not in FACTORIES:
            return False
        try:
            args = list(node.args)
            if likeness and args[0] not in self.folded:
                args[0] = None
            args = [value_of(a) for a in args]
            kwargs = {k: value_of(v) for k, v in node.kwargs.items() if k not in SKIPPED_KEYWORDS}
        except KeyError:
            return False
        if likeness and args[0] is None:
            args[0] = torch.empty(0, dtype=node.args[0].meta["val"].dtype)
        self.folded[node] = node.target(*args, **kwargs)
        return True

    def lower(self, module):
        later_uses = self.last_uses(module.graph)
        for position, node in enumerate(module.graph.nodes):
            if node.op == "get_attr":
                value = getattr(module, node.target)
                if isinstance(value, torch.Tensor):
                    self.folded[node] = value.detach().clone()
                continue
            if node.op != "call_function":
                continue
            where = self.where(node)
            if node.target is operator.getitem and node.args[0] in self.folded:
                self.folded[node] = self.folded[node.args[0]][node.args[1]]
                continue
            if node.target is operator.getitem:
                source = self.values.get(node.args[0])
                if isinstance(source, list):
                    self.values[node] = source[node.args[1]]
                elif isinstance(source, Result):
                    self.values[node] = Result(source.op, node.args[1])
                continue
            if isinstance(node.target, torch._ops.HigherOrderOperator):
                self.inline(module, node, where)
                continue
            if not isinstance(node.target, torch._ops.OpOverload):
                continue  # arithmetic on sizes: what uses it knows its value
            if node.target._schema.name not in ("aten::sym_size", "aten::sym_numel") and self.fold(node):
                continue
            self.operator(node, where, position, later_uses)

    def inline(self, module, node, where):
        name = node.target.name() if callable(getattr(node.target, "name", None)) else str(node.target)
        if "set_grad_enabled" in name:
            enabled, body, *args = node.args
        elif "autocast" in name:
            _, _, enabled, _, body, *args = node.args
            if enabled:
                raise Refusal(f"{where}: autocast is not known here; export the model in float32")
            enabled = True
        else:
            raise Refusal(f"{where}: control flow that depends on the data ({name}) cannot be kept: write it with torch.where")
        inner = getattr(module, body.target)
        for placeholder, argument in zip([n for n in inner.graph.nodes if n.op == "placeholder"], args):
            self.values[placeholder] = self.literal(argument, where)
        self.lower(inner)
        outputs = next(n for n in inner.graph.nodes if n.op == "output").args[0]
        results = [self.values[n] for n in outputs]
        if not enabled:
            results = [self.emit("aten::detach", [r], {}, [self.meta(n.meta["val"], where)], node, where)
                       for r, n in zip(results, outputs)]
        self.values[node] = results

    def emit(self, name, args, kwargs, outputs, node, where):
        self.ops.append(Op(name, args, kwargs, outputs, self.path(node), where))
        return Result(len(self.ops) - 1)

    @staticmethod
    def last_uses(graph):
        positions = {node: position for position, node in enumerate(graph.nodes)}
        return {node: max([positions[user] for user in node.users], default=-1) for node in graph.nodes}

    def writes_alone(self, node, position, later_uses):
        """Whether nobody sees the memory that the operator writes into but through its result."""
        base = node.args[0]
        seen, queue = {base}, [base]
        while queue:  # all that may share the memory
            at = queue.pop()
            relatives = []
            if at.op == "call_function" and isinstance(at.target, torch._ops.OpOverload):
                plain = at.target._schema.name.removeprefix("aten::")
                if plain in operators.VIEWS or plain.endswith("_"):
                    relatives += [a for a in at.args[:1] if isinstance(a, torch.fx.Node)]
            elif at.op == "placeholder":
                return False
            for user in at.users:
                if user.op == "call_function" and user.target is operator.getitem:
                    relatives.append(user)
                elif (user.op == "call_function" and isinstance(user.target, torch._ops.OpOverload) and user.args and
                      user.args[0] is at and user is not node):
                    plain = user.target._schema.name.removeprefix("aten::")
                    if plain in operators.VIEWS or plain.endswith("_"):
                        relatives.append(user)
            for relative in relatives:
                if relative not in seen:
                    seen.add(relative)
                    queue.append(relative)
        return all(later_uses[other] <= position for other in seen if other is not node)

    def arguments(self, node, where):
        schema = node.target._schema
        args = [self.literal(argument, where) for argument in node.args]
        keywords = {}
        for argument in schema.arguments:
            if argument.name not in node.kwargs or argument.name in SKIPPED_KEYWORDS:
                continue
            value = self.literal(node.kwargs[argument.name], where)
            if value is None or (argument.has_default_value() and node.kwargs[argument.name] == argument.default_value):
                continue
            keywords[argument.name] = value
        positional = [a for a in schema.arguments if not a.kwarg_only]
        while args and len(args) <= len(positional):
            last = positional[len(args) - 1]
            if not last.has_default_value() or args[-1] != last.default_value or isinstance(args[-1], (Result, Tensor, Input)):
                break
            args.pop()
        return args, keywords

    def operator(self, node, where, position, later_uses):
        schema = node.target._schema
        name = schema.name + (f".{schema.overload_name}" if schema.overload_name else "")
        if name in operators.IGNORED:
            return
        value = node.meta.get("val")
        metas = [self.meta(v, where) for v in (value if isinstance(value, (list, tuple)) else [value])
                 if isinstance(v, torch.Tensor)]
        args, keywords = self.arguments(node, where)
        plain = schema.name.removeprefix("aten::")
        if plain.endswith("_") and not plain.startswith("_") and schema.name.startswith("aten::"):
            if isinstance(args[0], Tensor):
                if args[0].name.endswith("num_batches_tracked"):
                    self.dropped_buffers.add(args[0].name)
                    return
                raise Refusal(f"{where}: writes into {args[0].name}; forward may change batch norm's statistics alone")
            if isinstance(args[0], Input) or not self.writes_alone(node, position, later_uses):
                raise Refusal(f"{where}: {plain} writes into memory that is read under another name later; "
                              f"use {plain[:-1]} and its result")
            short = plain + (f".{schema.overload_name}" if schema.overload_name else "")
            name = "aten::" + operators.OUT_OF_PLACE.get(
                short, plain[:-1] + (f".{schema.overload_name}" if schema.overload_name else ""))
        name = operators.RENAMED.get(name, name)
        if name.startswith("aten::to."):  # to a type, a device, another's type: the type is what is left of it
            if metas[0].dtype == self.meta(node.args[0].meta["val"], where).dtype:
                self.values[node] = args[0]
                return
            name, args, keywords = "aten::to.dtype", [args[0], DType(metas[0].dtype)], {}
        if name == "aten::dropout" or name == "aten::feature_dropout":
            ours = "ecopipe::dropout" if name == "aten::dropout" else "ecopipe::dropout_channels"
            result = self.emit(ours, [args[0], args[1] if args[2] else 0.0], {}, metas, node, where)
        elif name == "aten::scaled_dot_product_attention" and self.writes_attention_out:
            result = decompose.attention(self, node, args, keywords, where)
        elif name == "aten::rms_norm" and self.target == "1.13":
            result = decompose.rms_norm(self, node, args, where)
        elif name == "aten::copy" or name == "aten::copy_":
            raise Refusal(f"{where}: assigns into a part of a tensor; build it with torch.cat or torch.where")
        else:
            allowed = operators.ALLOWED | operators.DRAWS | (operators.ALLOWED_LATER if self.target != "1.13" else set())
            if name not in allowed:
                raise Refusal(f"{where}: {name} is no operator that a graph may use")
            if name in ("aten::lstm.input", "aten::gru.input", "aten::rnn_tanh.input", "aten::rnn_relu.input"):
                # input, hx, weights, has_biases, layers, dropout, train, bidirectional, batch_first
                if args[5]:
                    raise Refusal(f"{where}: dropout inside {name.split('.')[0]} cannot be keyed; put nn.Dropout between layers of one")
                args[6] = False
            result = self.emit(name, args, keywords, metas, node, where)
        self.values[node] = result


def same_but_literals(training, evaluation, where):
    """One argument out of two; differing literals become ByMode."""
    if isinstance(training, list) and isinstance(evaluation, list) and len(training) == len(evaluation):
        return [same_but_literals(t, e, where) for t, e in zip(training, evaluation)]
    if training == evaluation and type(training) is type(evaluation):
        return training
    plain = (bool, int, float, type(None))
    if isinstance(training, plain) and isinstance(evaluation, plain):
        return ByMode(training, evaluation)
    raise Refusal(f"{where}: training and evaluation mode compute different things here; they may differ in flags alone")


def merged(training, evaluation, types):
    """One list of operators out of those of the two modes. A dropout that evaluation leaves out stays, idle in evaluation."""
    ops, at = [], {}  # at: index in evaluation -> reference in the result
    position = 0

    def translated(reference):
        return at[reference] if isinstance(reference, Result) else reference

    for op in training:
        other = evaluation[position] if position < len(evaluation) else None
        if other is not None and other.name == op.name:
            args = [mapped(a, translated) for a in other.args]
            keywords = {k: mapped(v, translated) for k, v in other.kwargs.items()}
            same = references_in([*op.args, *op.kwargs.values()])
            theirs = references_in([*args, *keywords.values()])
            if list(same) == list(theirs):
                if set(op.kwargs) != set(keywords) or len(op.args) != len(args):
                    length = max(len(op.args), len(args))
                    raise Refusal(f"{op.where}: {op.name} has other arguments in training than in evaluation ({length})")
                op.args = [same_but_literals(t, e, op.where) for t, e in zip(op.args, args)]
                op.kwargs = {k: same_but_literals(op.kwargs[k], keywords[k], op.where) for k in op.kwargs}
                for output in range(max(1, len(op.outputs))):
                    at[Result(position, output)] = Result(len(ops), output)
                ops.append(op)
                position += 1
                continue
        if op.name in operators.DRAWS:
            # Evaluation goes on from what the dropout takes.
            source = op.args[0]
            for theirs, ours in list(at.items()):
                if ours == source:
                    at[theirs] = Result(len(ops))
            op.args[1] = ByMode(op.args[1], 0.0)
            ops.append(op)
            continue
        raise Refusal(f"{op.where}: training mode computes {op.name} where evaluation mode computes "
                      f"{other.name if other else 'nothing'}; they may differ in flags and dropout alone")
    if position != len(evaluation):
        raise Refusal(f"{evaluation[position].where}: evaluation mode computes {evaluation[position].name}, which training mode "
                      "does not")
    return ops, at


def dynamic_shapes(args, kwargs):
    batch = torch.export.Dim("batch", min=1, max=1 << 20)

    def shape_of(value):
        return {0: batch} if isinstance(value, torch.Tensor) and value.dim() > 0 else None
    return tuple(shape_of(a) for a in args), {k: shape_of(v) for k, v in kwargs.items()}


def captured(model, args, kwargs, target, near, choose_output):
    """The Program of a module. `choose_output(outputs)` picks one of the forward's flat outputs."""
    positional, named = dynamic_shapes(args, kwargs)
    parameters = list(inspect.signature(model.forward).parameters)
    shapes = {name: shape for name, shape in zip(parameters, positional)} | named
    if any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(model.forward).parameters.values()):
        shapes = positional
    was = model.training
    programs = [exported(model, args, kwargs, shapes, training, near) for training in (True, False)]
    # Its own dropout is not keyed.
    writes_attention_out = target == "1.13" or any(decompose.attention_drops(node) for node in programs[0].graph.nodes)
    lowered = []
    for program in programs:
        lowering = Lowering(program, target, near, writes_attention_out)
        outputs = lowering.run()
        lowered.append((lowering, outputs))
    model.train(was)
    (training, outputs), (evaluation, other_outputs) = lowered
    ops, at = merged(training.ops, evaluation.ops, training.types)
    output = choose_output(outputs)
    theirs = choose_output(other_outputs)
    if not isinstance(output, Result):
        raise Refusal("the model's output is none of its own tensors")
    if at.get(theirs) != output:
        raise Refusal("training and evaluation mode hand on different outputs")
    ops, output = without_dead(ops, output)
    state = model.state_dict(keep_vars=True)
    used = {r.name for op in ops for r in op.references() if isinstance(r, Tensor)}
    first_of, tied = {}, []
    for name, tensor in state.items():
        first = first_of.setdefault(id(tensor), name)
        if first != name:
            group = next((g for g in tied if g[0] == first), None)
            if group is None:
                tied.append(group := [first])
            group.append(name)
    first_name = {name: group[0] for group in tied for name in group}
    for op in ops:
        def renamed(reference):
            return Tensor(first_name.get(reference.name, reference.name)) if isinstance(reference, Tensor) else reference
        op.args = [mapped(a, renamed) for a in op.args]
        op.kwargs = {k: mapped(v, renamed) for k, v in op.kwargs.items()}
    used = {first_name.get(name, name) for name in used}
    tensors = {name: tensor.detach() for name, tensor in state.items() if name in used}
    tensors |= {name: tensor.detach() for name, tensor in model.named_buffers() if name in used and name not in tensors}
    not_saved = {name for name, _ in model.named_buffers()} - set(state)
    parameters = {name: p for name, p in model.named_parameters() if name in used}
    constants = {name: tensor for name, tensor in training.constants.items() if name in used}
    tensors |= constants
    missing = used - set(tensors)
    if missing:
        raise Refusal(f"{sorted(missing)[0]} is no parameter or buffer of the model")
    taken = {r.name for op in ops for r in op.references() if isinstance(r, Input)}
    inputs = {name: meta for name, meta in training.input_names if name in taken}
    for name, meta in inputs.items():
        if not meta.shape or not isinstance(meta.shape[0], Batch):
            raise Refusal(f"input {name}: its first dimension must be the batch")
    return Program(inputs, ops, [output], tensors, set(parameters), {n for n, p in parameters.items() if not p.requires_grad},
                   set(constants) | (not_saved & used), [g for g in tied if g[0] in used], training.types,
                   [name for name, _ in training.input_names])


def without_dead(ops, output):
    """Without what no output needs."""
    needed, queue = set(), [output.op]
    while queue:
        index = queue.pop()
        if index in needed:
            continue
        needed.add(index)
        queue += [r.op for r in ops[index].references() if isinstance(r, Result)]
    number = {old: new for new, old in enumerate(sorted(needed))}

    def renumbered(reference):
        return Result(number[reference.op], reference.output) if isinstance(reference, Result) else reference
    kept = []
    for index in sorted(needed):
        op = ops[index]
        op.args = [mapped(a, renumbered) for a in op.args]
        op.kwargs = {k: mapped(v, renumbered) for k, v in op.kwargs.items()}
        kept.append(op)
    return kept, renumbered(output)
