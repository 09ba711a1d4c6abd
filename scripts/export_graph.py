#!/usr/bin/env python3
"""Captures any PyTorch model as a graph that ecopipe trains, and turns what it trained back into the model's state dict.

    export_graph.py MODEL --out DIR [--input CxHxW | --tokens T,VOCABULARY] [--num-classes N] [--aten 1.13|2.6]
                    [--state-dict FILE [--except 'classifier.*']] [--without-dropout] [--nodes FILE] [--seed N]
    export_graph.py MODEL --back run/model.safetensors --out model.pth [--num-classes N] ...

MODEL is a name in torchvision.models, FILE.py:FUNCTION (returns the module, or the module and a tuple of example inputs with a
batch of 2), or hf:DIR, a folder of a Hugging Face model (with transformers installed; nothing is downloaded).

DIR then holds graph.json, which is data and no code (docs/reference/graph.md), and weights.safetensors: give the directory to
ecopipe-train, ecopipe-profile and the others as --model. Before they are written, the captured operators are run in Python and
held against the model: outputs in evaluation and in training mode, at another batch size than the example's too, and gradients.
They are equal to the bit, or it says how near they are, and above 1e-5 (gradients: 1e-4) of the largest it writes nothing. What
cannot be captured is refused with the line of your file.

--aten 1.13 (the default) uses the operators that LibTorch 1.13 has, which later ones have too. --nodes names modules, one a
line, at which a node of the graph begins; otherwise nodes follow the modules where few bytes cross.

Needs PyTorch 2.6 or later (pip install torch; torchvision and transformers for their models)."""

import argparse
import inspect
import logging
import math
import os

import torch

from graph_export import capture, draws, files, grouping, interpret
from graph_export.ir import Refusal
from model_sources import from_file, from_torchvision, positive_numbers, sample
from torch_files import fail, load_state, one_line, read_safetensors

TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
SAMPLES = 2  # of the example; the proof takes another number of them too


def build(arguments):
    """The module, its example inputs (args, kwargs), the file whose lines matter, and how to pick its output."""
    torch.manual_seed(arguments.seed)
    name = arguments.model
    first = lambda outputs: outputs[0]  # noqa: E731
    if ".py:" in name:
        made = from_file(name)
        example = None
        if isinstance(made, tuple):
            made, example = made[0], made[1] if isinstance(made[1], tuple) else tuple(made[1:])
        if not isinstance(made, torch.nn.Module):
            fail(f"{name}: expected an nn.Module, or one and its example inputs, found {type(made).__name__}")
        args = example if example is not None else (sample(arguments, SAMPLES),)
        return made, (args, {}), os.path.abspath(name.rsplit(":", 1)[0]), first
    if name.startswith("hf:"):
        return huggingface(name.removeprefix("hf:"), arguments)
    extra = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    if name.startswith("vit"):
        extra["image_size"] = int(arguments.input.split("x")[-1])
    model = from_torchvision(name, num_classes=arguments.num_classes, **extra)
    return model, ((sample(arguments, SAMPLES),), {}), os.path.dirname(inspect.getsourcefile(type(model))), first


def huggingface(folder, arguments):
    try:
        import transformers
    except ImportError:
        fail("hf: needs transformers (pip install transformers)")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        architecture = getattr(transformers, (config.architectures or ["AutoModel"])[0])
        config.use_cache = False
        model = architecture.from_pretrained(folder, config=config, local_files_only=True, attn_implementation="eager",
                                             torch_dtype=torch.float32)
    except Exception as error:  # transformers raises what it likes
        fail(f"hf:{folder}: {one_line(error)}")
    length, vocabulary = positive_numbers(arguments.tokens, ",", 2, "--tokens", "LENGTH,VOCABULARY") if arguments.tokens else (
        min(64, getattr(config, "max_position_embeddings", 64)), config.vocab_size)
    ids = torch.randint(0, vocabulary, (SAMPLES, length), generator=torch.Generator().manual_seed(1))
    kwargs = {"input_ids": ids}
    if "attention_mask" in inspect.signature(model.forward).parameters:
        kwargs["attention_mask"] = torch.ones_like(ids)
    with torch.no_grad():
        outputs = model.eval()(**kwargs)
    keys = list(outputs.keys())
    wanted = next((key for key in ("logits", "last_hidden_state") if key in keys), keys[0])
    index = keys.index(wanted)
    return model, ((), kwargs), transformers.__path__[0], lambda outputs: outputs[index]


# ---- the proof


def named_inputs(program, args, kwargs):
    """The example's tensors by the names of the program's inputs, those that it does not use too."""
    given = [*[a for a in args if isinstance(a, torch.Tensor)], *[v for v in kwargs.values() if isinstance(v, torch.Tensor)]]
    return dict(zip(program.all_inputs, given))


def other_batch(tensors, batch):
    """The same inputs at another batch size: repeated samples, shifted so that they differ."""
    return {name: torch.cat([t] * (batch // t.shape[0] + 1))[:batch].roll(1, -1) if t.dim() > 1 else
            torch.cat([t] * (batch // t.shape[0] + 1))[:batch] for name, t in tensors.items()}


def original(model, args, kwargs, names, inputs, choose, training):
    positional = len([a for a in args if isinstance(a, torch.Tensor)])
    values = [inputs[name] for name in names]
    supplied = iter(values[positional:])
    given = {k: next(supplied) if isinstance(v, torch.Tensor) else v for k, v in kwargs.items()}
    model.train(training)
    torch.manual_seed(2)  # dropout draws the same
    outputs = model(*values[:positional], **given)
    flat, _ = torch.utils._pytree.tree_flatten(outputs)
    return choose([f for f in flat if f is not None] if kwargs else flat)


def prove(model, args, kwargs, program, grouped, choose):
    """Equal outputs in both modes, equal gradients, at the example's batch size and at another. The facts for graph.json."""
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    names = program.all_inputs
    example = named_inputs(program, args, kwargs)
    exact = True
    worst = 0.0
    for inputs in (example, other_batch(example, 3)):
        for training in (False, True):
            model.load_state_dict(kept)
            with torch.no_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
                theirs = original(model, args, kwargs, names, inputs, choose, training)
            model.load_state_dict(kept)
            tensors = {name: tensor.clone() for name, tensor in program.tensors.items()}
            torch.manual_seed(2)
            with torch.no_grad():
                (ours,) = interpret.run(program, tensors, inputs, training, grouped.nodes)
            exact = exact and torch.equal(ours, theirs)
            worst = max(worst, (ours - theirs).abs().max().item() / max(theirs.abs().max().item(), 1e-30))
            if not worst <= TOLERANCE:
                fail(f"outputs differ by {worst:.1e} of their largest in {'training' if training else 'evaluation'} mode")
    gradients = prove_gradients(model, args, kwargs, program, grouped, choose, kept, example)
    model.load_state_dict(kept)
    return {"batch": SAMPLES, "outputs": "equal" if exact else worst, "gradients": gradients}


def prove_gradients(model, args, kwargs, program, grouped, choose, kept, inputs):
    generator = torch.Generator().manual_seed(3)
    model.load_state_dict(kept)
    model.zero_grad(set_to_none=True)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        theirs = original(model, args, kwargs, program.all_inputs, inputs, choose, True)
    weights = torch.randn(theirs.shape, generator=generator)
    (theirs * weights).sum().backward()
    reference = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    tensors = {name: tensor.clone().requires_grad_(name in program.parameters and name not in program.frozen)
               for name, tensor in program.tensors.items()}
    torch.manual_seed(2)
    (ours,) = interpret.run(program, tensors, inputs, True, grouped.nodes)
    (ours * weights).sum().backward()
    worst = 0.0
    for name, gradient in reference.items():
        if name not in tensors:
            continue
        found = tensors[name].grad
        if found is None:
            fail(f"parameter {name} gets no gradient from the captured operators")
        worst = max(worst, (found - gradient).abs().max().item() / max(gradient.abs().max().item(), 1e-6))
    if not worst <= GRADIENT_TOLERANCE:
        fail(f"gradients differ by {worst:.1e} of their largest")
    return worst


# ---- export and back


def export(arguments):
    model, (args, kwargs), near, choose = build(arguments)
    if arguments.state_dict:
        load_state(model, arguments.state_dict, arguments.left_out)
    elif arguments.left_out:
        fail("--except goes with --state-dict")
    if arguments.without_dropout:
        draws.silence(model)
    draws.replace(model)
    for tensor in [*args, *kwargs.values()]:
        if isinstance(tensor, torch.Tensor) and (tensor.dim() == 0 or tensor.shape[0] != SAMPLES):
            fail(f"{arguments.model}: expected example inputs with a batch of {SAMPLES}, found shape {list(tensor.shape)}")
    program = capture.captured(model, args, kwargs, arguments.aten, near, choose)
    starts = grouping.boundaries(program)
    if arguments.nodes:
        with open(arguments.nodes, encoding="utf-8") as file:
            starts = grouping.starts_named(program, [line.strip() for line in file if line.strip()])
    grouped = grouping.Grouped(program, starts)
    proof = prove(model, args, kwargs, program, grouped, choose)
    os.makedirs(arguments.out, exist_ok=True)
    made_by = f"export_graph.py, torch {torch.__version__.split('+')[0]}"
    graph = files.graph_json(grouped, made_by, arguments.aten, proof)
    files.write_graph(os.path.join(arguments.out, "graph.json"), graph)
    files.write_safetensors(os.path.join(arguments.out, "weights.safetensors"), program.tensors)
    if arguments.reference:
        write_reference(arguments, model, args, kwargs, program, choose)
    widest = 0
    for number, node in enumerate(graph["nodes"]):
        start, end, _, made = grouped.nodes[number]
        crossing = sum(grouping.bytes_of(grouped.metas[grouped.value_names[r]]) for r in grouping.Flow(program).crossing(end)) \
            if number + 1 < len(graph["nodes"]) else 0
        widest = max(widest, crossing)
        numbers = sum(math.prod(program.tensors[t].shape) for t in node["tensors"] if t in program.parameters)
        print(f"{number:3}  {node['name']:<32} {node['kind']:<24} {len(node['ops']):4} operators {numbers:>12,} parameters"
              + (f"  {crossing / 1024:8.1f} KiB a sample cross" if crossing else ""))
    total = sum(math.prod(program.tensors[t].shape) for t in program.parameters)
    outputs = "equal the model's bit for bit" if proof["outputs"] == "equal" else f"equal the model's to {proof['outputs']:.0e}"
    print(f"{arguments.out}: {len(graph['nodes'])} nodes, {len(program.ops)} operators, {total:,} parameters, at most "
          f"{widest / 1024:.1f} KiB a sample cross; outputs {outputs} in evaluation and training mode, gradients to "
          f"{proof['gradients']:.0e}")


def write_reference(arguments, model, args, kwargs, program, choose):
    """What PyTorch computes on the example inputs: for tests that hold ecopipe against it."""
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs = named_inputs(program, args, kwargs)
    generator = torch.Generator().manual_seed(4)
    found = {f"inputs.{name}": tensor for name, tensor in inputs.items()}
    with torch.no_grad():
        found["outputs"] = original(model, args, kwargs, list(inputs), inputs, choose, False).contiguous()
    model.load_state_dict(kept)
    model.zero_grad(set_to_none=True)
    outputs = original(model, args, kwargs, list(inputs), inputs, choose, True)
    found["training_outputs"] = outputs.detach().contiguous()
    found["output_gradients"] = torch.randn(outputs.shape, generator=generator)
    (outputs * found["output_gradients"]).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and name in program.parameters:
            found[f"gradients.{name}"] = parameter.grad.contiguous()
    model.load_state_dict(kept)
    files.write_safetensors(arguments.reference, found)


def back(arguments):
    model, (args, kwargs), _, choose = build(arguments)
    trained = read_safetensors(arguments.back)
    own = model.state_dict()
    unknown = sorted(name for name in trained if name not in own and not name.startswith("constants.")
                     and name not in dict(model.named_buffers()))
    if unknown:
        fail(f"{arguments.back}: {unknown[0]} is no tensor of the model")
    for name, tensor in trained.items():
        if name in own and tensor.shape != own[name].shape:
            fail(f"{arguments.back}: {name}: expected shape {list(own[name].shape)}, found {list(tensor.shape)}")
    missing = [name for name in own if name not in trained and not name.endswith("num_batches_tracked")]
    model.load_state_dict({name: tensor for name, tensor in trained.items() if name in own}, strict=False)
    with torch.no_grad():
        model.eval()
        outputs = model(*args, **kwargs)
    flat, _ = torch.utils._pytree.tree_flatten(outputs)
    if not all(bool(torch.isfinite(f).all()) for f in flat if isinstance(f, torch.Tensor) and f.is_floating_point()):
        fail(f"{arguments.back}: the model's outputs with these weights are not finite")
    torch.save(model.state_dict(), arguments.out)
    kept = f"; {len(missing)} tensors that nothing trains keep their first values, such as {missing[0]}" if missing else ""
    print(f"{arguments.out}: the state dict of {arguments.model} with {len(trained)} trained tensors{kept}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--out", required=True)
    parser.add_argument("--input", default="3x64x64", help="one sample")
    parser.add_argument("--tokens", help="LENGTH,VOCABULARY: samples are token ids instead")
    parser.add_argument("--num-classes", type=int, default=1000)
    parser.add_argument("--state-dict")
    parser.add_argument("--except", dest="left_out", default="")
    parser.add_argument("--aten", choices=["1.13", "2.6"], default="1.13", help="whose operators are used")
    parser.add_argument("--nodes", help="a file of module names at which nodes begin")
    parser.add_argument("--without-dropout", action="store_true", help="every rate becomes 0")
    parser.add_argument("--reference", help="writes what PyTorch computes on the example, for tests")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--back", help="a trained model.safetensors")
    arguments = parser.parse_args()
    if arguments.num_classes < 1:
        fail(f"--num-classes: expected a positive number, found {arguments.num_classes}")
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)  # torch.export tells what it stumbles over; a refusal is one line
    try:
        (back if arguments.back else export)(arguments)
    except Refusal as refusal:
        fail(f"{arguments.model}: {refusal}")


main()
