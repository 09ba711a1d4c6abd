#!/usr/bin/env python3
"""Turns a PyTorch model into the TorchScript file that ecopipe trains, and a trained model back.

    export_sequential.py MODEL --out model.pt [--num-classes N] [--state-dict FILE [--except 'classifier.*']]
                         [--input CxHxW | --tokens T,VOCABULARY] [--seed N]
    export_sequential.py MODEL --back run/model.safetensors --out model.pth [--num-classes N] [--input ...]

MODEL is a name in torchvision.models (mobilenet_v2, resnet18, resnet50, vgg11 and their kin) or FILE.py:FUNCTION, a function
without arguments that returns an nn.Sequential. A layer of ecopipe's is one block of the model: an inverted residual, a
residual block, or a module of the Sequential (those in nested Sequentials one by one).

The exported file's tensors have the names that they have in the model's own state dict, so model.safetensors, --init,
--freeze and --init-except speak of 'layer1.0.conv1.weight' as the model does. Before it is written, the scripted model is
held against the original: equal outputs to the bit, in evaluation and in training mode.

--back reads a trained model.safetensors or best.safetensors into the original module, runs it and what ecopipe trained (the
model.pt beside the file, when it holds the same tensors) on one input, refuses outputs that differ by more than 1e-5 (of
their largest), and writes the module's state dict with torch.save.

Needs the Debian packages python3-torch and, for its models, python3-torchvision. Nothing is downloaded: weights are random
(by --seed) or those of --state-dict, a file of torch.save or safetensors."""

import argparse
import os

import torch
from torch import nn

from model_sources import from_file, from_torchvision, sample
from torch_files import fail, load_state, one_line, read_safetensors

TOLERANCE = 1e-5
SAMPLES = 4  # that both forms are held against each other with


def flattened(name, module):
    """A Sequential's children one by one, under the names that they have in the whole; anything else as it is."""
    if type(module) is nn.Sequential:
        for child_name, child in module._modules.items():  # named_children leaves out what stands there twice
            yield from flattened(f"{name}.{child_name}" if name else child_name, child)
    else:
        yield name, module


def torchvision_layers(name, model):
    """The blocks of a torchvision model, in the order in which its forward calls them."""
    if name.startswith("mobilenet_v2"):
        yield from flattened("features", model.features)
        yield "pool", nn.AdaptiveAvgPool2d((1, 1))
        yield "flatten", nn.Flatten()
        yield from flattened("classifier", model.classifier)
    elif name.startswith(("resnet", "resnext", "wide_resnet")):
        for stem in ("conv1", "bn1", "relu", "maxpool"):
            yield stem, getattr(model, stem)
        for group in ("layer1", "layer2", "layer3", "layer4"):
            yield from flattened(group, getattr(model, group))
        yield "avgpool", model.avgpool
        yield "flatten", nn.Flatten()
        yield "fc", model.fc
    elif name.startswith(("vgg", "alexnet")):
        yield from flattened("features", model.features)
        yield "avgpool", model.avgpool
        yield "flatten", nn.Flatten()
        yield from flattened("classifier", model.classifier)
    else:
        fail(f"{name}: expected a mobilenet_v2, resnet, vgg or alexnet of torchvision, or FILE.py:FUNCTION")


def build(arguments):
    """The original model, and its layers as (name, module)."""
    torch.manual_seed(arguments.seed)
    name = arguments.model
    if ".py:" not in name:
        model = from_torchvision(name, num_classes=arguments.num_classes)
        return model, list(torchvision_layers(name, model))
    model = from_file(name)
    if type(model) is not nn.Sequential:
        fail(f"{name}: expected an nn.Sequential, found {type(model).__name__}")
    if len(model) == 0:
        fail(f"{name}: has no layer")
    return model, list(flattened("", model))


def sequential(layers):
    """A Sequential whose children keep their dotted names: its state dict is then the original's. nn.Module's own
    add_module refuses dots; TorchScript does not mind them."""
    top = nn.Sequential()
    for name, module in layers:
        top._modules[name] = module
    return top


def scripted_form(model_name, layers):
    try:
        return torch.jit.script(sequential(layers).train())
    except Exception as error:  # TorchScript's compiler raises many kinds
        fail(f"{model_name}: TorchScript cannot express it: {one_line(error)}")


def outputs_of(form, x, model_name):
    try:
        with torch.no_grad():
            return form(x)
    except Exception as error:  # whatever a layer says of a shape that does not fit
        fail(f"{model_name}: takes no sample of shape {list(x.shape[1:])} (--input, --tokens): {one_line(error)}")


def prove_equal(model, scripted, x, model_name):
    """Outputs of both, bit for bit, in both modes; buffers that training mode changes, which both share, are put back."""
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for training in (False, True):
        outputs = []
        for form in (model, scripted):
            form.train(training)
            torch.manual_seed(2)  # dropout draws the same
            outputs.append(outputs_of(form, x, model_name))
            model.load_state_dict(kept)
        if not torch.equal(*outputs):
            worst = (outputs[0] - outputs[1]).abs().max().item()
            fail(f"outputs differ by {worst} in {'training' if training else 'evaluation'} mode: the model does more in its "
                 "forward than to call its layers in their order")
    return outputs[0].shape


def export(arguments):
    x = sample(arguments, SAMPLES)
    model, layers = build(arguments)
    if arguments.state_dict:
        load_state(model, arguments.state_dict, arguments.left_out)
    elif arguments.left_out:
        fail("--except goes with --state-dict")
    if list(sequential(layers).state_dict()) != list(model.state_dict()):
        fail(f"{arguments.model}: its layers hold other tensors than the model")
    parameters = [parameter for _, layer in layers for parameter in layer.parameters()]
    if len({id(parameter) for parameter in parameters}) != len(parameters):
        fail(f"{arguments.model}: two layers share a parameter; layers are trained apart, each with its own")
    scripted = scripted_form(arguments.model, layers)
    shape = prove_equal(model, scripted, x, arguments.model)
    scripted.train()
    scripted.save(arguments.out)
    for index, (name, module) in enumerate(layers):
        parameters = sum(parameter.numel() for parameter in module.parameters())
        print(f"{index:3}  {name:<20} {type(module).__name__:<24} {parameters:>12,} parameters")
    print(f"{arguments.out}: {len(layers)} layers, {sum(p.numel() for p in model.parameters()):,} parameters; outputs "
          f"{list(shape)} equal the original's bit for bit, in evaluation and training mode")


def back(arguments):
    x = sample(arguments, SAMPLES)
    model, layers = build(arguments)
    trained = read_safetensors(arguments.back)
    own = model.state_dict()
    if set(trained) != set(own):
        fail(f"{arguments.back}: expected the model's tensors, {sorted(set(trained) ^ set(own))[0]} is in one alone")
    for name, tensor in trained.items():
        if tensor.shape != own[name].shape:
            fail(f"{arguments.back}: {name}: expected shape {list(own[name].shape)}, found {list(tensor.shape)}")
    model.load_state_dict(trained)
    # What ecopipe-train wrote of the same run. It holds the last weights, which best.safetensors need not be.
    beside = os.path.join(os.path.dirname(arguments.back), "model.pt")
    scripted = scripted_form(arguments.model, layers)
    if os.path.exists(beside):
        written = torch.jit.load(beside)
        held = written.state_dict()
        if set(held) == set(trained) and all(torch.equal(held[name], trained[name]) for name in trained):
            scripted = written
    ours, theirs = (outputs_of(form.eval(), x, arguments.model) for form in (scripted, model))
    error = (ours - theirs).abs().max().item() / max(theirs.abs().max().item(), 1e-30)
    if not error <= TOLERANCE:
        fail(f"{arguments.back}: outputs differ by {error:.2e} of their largest, more than {TOLERANCE}")
    torch.save(model.state_dict(), arguments.out)
    print(f"{arguments.out}: the state dict of {arguments.model}; outputs equal to {error:.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--out", required=True)
    parser.add_argument("--num-classes", type=int, default=1000)
    parser.add_argument("--state-dict")
    parser.add_argument("--except", dest="left_out", default="")
    parser.add_argument("--input", default="3x64x64", help="one sample, to prove equality with")
    parser.add_argument("--tokens", help="LENGTH,VOCABULARY: samples are token ids instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--back", help="a trained model.safetensors")
    arguments = parser.parse_args()
    if arguments.num_classes < 1:
        fail(f"--num-classes: expected a positive number, found {arguments.num_classes}")
    folder = os.path.dirname(arguments.out) or "."
    if not os.path.isdir(folder):
        fail(f"--out {arguments.out}: there is no directory {folder}")
    torch.set_num_threads(1)
    (back if arguments.back else export)(arguments)


main()
