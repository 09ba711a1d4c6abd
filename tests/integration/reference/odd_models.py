"""Models and data that are ordinary in PyTorch and easy to get wrong, and what PyTorch makes of them.

    odd_models.py write DIR
    odd_models.py compare DIR MODEL:DATA:OPTIMIZER:CLASS_WEIGHTS...

`compare` trains as `ecopipe-train --single --micro-batches 1` does on whole batches and compares every tensor of the state dict in
DIR/CASE/model.safetensors, names included: a weight with several names stands under each."""

import sys
import zipfile
from typing import Tuple

import numpy as np
import torch
from torch import Tensor, nn

from reference_files import read_safetensors
from safetensors_writer import save


class Rebinds(nn.Module):
    """Replaces its buffer by a new tensor, and computes with it."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(16))

    def forward(self, x):
        if self.training:
            self.mean = self.mean * 0.9 + x.detach().mean(0) * 0.1
        return x - self.mean


class WritesInPlace(Rebinds):
    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.mean.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
        return x - self.mean


class Counts(nn.Module):
    """Changes its buffer whenever it is called, tested or trained."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls = self.calls + 1
        return x


class OwnState(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x / self.calls


class GrowsItsBuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.seen = torch.cat([self.seen, self.seen])
        return x


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.phase = nn.Parameter(torch.zeros(2, dtype=torch.complex64))

    def forward(self, x):
        return x


class SplitMask(nn.Module):
    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        return x, x > 0


class SplitInt(nn.Module):
    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        return x, (x * 4).to(torch.int32)


class Middle(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, xy: Tuple[Tensor, Tensor]) -> Tuple[Tensor, Tensor]:
        return self.linear(xy[0]), xy[1]


class UseMask(nn.Module):
    def forward(self, xy: Tuple[Tensor, Tensor]) -> Tensor:
        return xy[0].masked_fill(xy[1], 0.0)


class UseInt(nn.Module):
    def forward(self, xy: Tuple[Tensor, Tensor]) -> Tensor:
        return xy[0] + xy[1].float() * 0.01


class Rounds(nn.Module):
    """Hands on integers alone: no gradient gets past it."""

    def forward(self, x):
        return (x * 4).long()


class Widens(nn.Module):
    def forward(self, x):
        return x.float()


def mlp(*middle):
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), *middle, nn.Linear(16, 3))


def tied_module():
    twice = nn.Linear(16, 16)
    return mlp(twice, nn.Tanh(), twice)


def tied_weight():
    a, b = nn.Linear(16, 16), nn.Linear(16, 16)
    b.weight = a.weight
    return mlp(a, nn.Tanh(), b, nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())


def tied_inside():
    """The two names of the weight stand in one layer."""
    twice = nn.Linear(16, 16)
    return mlp(nn.Sequential(twice, nn.Tanh(), twice))


def frozen_all():
    model = mlp()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def tokens():
    return nn.Sequential(nn.Embedding(20, 8, padding_idx=0), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 5))


MODELS = {
    "tied_module": tied_module, "tied_weight": tied_weight, "tied_inside": tied_inside,
    "rebound_buffer": lambda: mlp(Rebinds()), "written_buffer": lambda: mlp(WritesInPlace()),
    "rebound_twice": lambda: (lambda r: mlp(r, nn.Tanh(), r))(Rebinds()), "counting_buffer": lambda: mlp(Counts()),
    "own_state": lambda: mlp(OwnState()), "growing_buffer": lambda: mlp(GrowsItsBuffer()),
    "bool_between": lambda: mlp(SplitMask(), Middle(), UseMask()), "int32_between": lambda: mlp(SplitInt(), Middle(), UseInt()),
    "integers_alone": lambda: mlp(Rounds(), Widens()), "plain": mlp, "half": lambda: mlp().half(), "double": lambda: mlp().double(),
    "complex": lambda: mlp(Complex()),
    "frozen_all": frozen_all, "no_parameters": lambda: nn.Sequential(nn.Flatten(), nn.Softmax(1)), "tokens": tokens,
}


def write(directory):
    torch.manual_seed(1)
    for name, build in MODELS.items():
        torch.jit.script(build().train()).save(f"{directory}/{name}.pt")
    norm = mlp(nn.Dropout(0.4), nn.BatchNorm1d(16))
    torch.jit.trace(norm.eval(), torch.rand(4, 6)).save(f"{directory}/traced_evaluating.pt")
    torch.jit.trace(norm.train(), torch.rand(4, 6), check_trace=False).save(f"{directory}/traced_training.pt")
    torch.jit.script(norm).save(f"{directory}/norm_dropout_1d.pt")
    # As torch.jit.save writes a module whose tensors are on a GPU.
    with zipfile.ZipFile(f"{directory}/plain.pt") as plain, zipfile.ZipFile(f"{directory}/saved_on_gpu.pt", "w") as gpu:
        for entry in plain.infolist():
            content = plain.read(entry)
            if entry.filename.endswith("data.pkl"):
                content = content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            gpu.writestr(entry.filename, content)
    # An operator that this LibTorch lacks, in a model that a later one may run.
    for name, operator in (("attention_of_2_0", b"scaled_dot_product_attention"), ("of_tomorrow", b"operator_of_tomorrow")):
        with zipfile.ZipFile(f"{directory}/plain.pt") as plain, zipfile.ZipFile(f"{directory}/{name}.pt", "w") as newer:
            for entry in plain.infolist():
                newer.writestr(entry.filename, plain.read(entry).replace(b"torch.relu(", b"torch." + operator + b"("))
    random = np.random.default_rng(5)
    classes = random.integers(0, 3, 96)
    classes[:40] = 0  # unbalanced
    x = random.normal(size=(96, 6)).astype(np.float32) * 0.5
    x[np.arange(96), classes] += 2
    save(f"{directory}/features/train.safetensors", inputs=x, targets=classes.astype(np.int64))
    text = random.integers(1, 20, (48, 7)).astype(np.int64)
    tags = text % 5
    for i in range(48):
        text[i, 3 + i % 5:] = 0
        tags[i, 3 + i % 5:] = -100
    for split in ("train", "test"):
        save(f"{directory}/padded/{split}.safetensors", inputs=text, targets=tags)
    save(f"{directory}/all_padded/train.safetensors", inputs=text, targets=np.where(np.arange(48)[:, None] < 16, -100, tags))
    save(f"{directory}/far_class/train.safetensors", inputs=text, targets=np.where(tags == -100, 255, tags))
    weights = {k: v.numpy() for k, v in torch.jit.load(f"{directory}/plain.pt").state_dict().items()}
    save(f"{directory}/weights_f16.safetensors", **{k: v.astype(np.float16) for k, v in weights.items()})
    save(f"{directory}/weights_f64.safetensors", **{k: v.astype(np.float64) for k, v in weights.items()})
    save(f"{directory}/weights_i64.safetensors", **{k: v.astype(np.int64) for k, v in weights.items()})
    save(f"{directory}/weights_huge.safetensors", **{k: v.astype(np.float64) * 1e300 for k, v in weights.items()})
    tied = {k: v.numpy() for k, v in torch.jit.load(f"{directory}/tied_module.pt").state_dict().items()}
    save(f"{directory}/tied_once.safetensors", **{k: v for k, v in tied.items() if not k.startswith("4.")})
    save(f"{directory}/tied_apart.safetensors", **{k: v + 1 if k == "4.weight" else v for k, v in tied.items()})


def train(directory, model, data, optimizer_name, class_weights):
    tensors = read_safetensors(f"{directory}/{data}/train.safetensors")
    model = torch.jit.load(f"{directory}/{model}.pt").train()
    optimizer = {"sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.05),
                 "adam": lambda p: torch.optim.Adam(p, 0.01)}[optimizer_name](model.parameters())
    weight = torch.tensor([float(w) for w in class_weights.split(",")]) if class_weights else None
    criterion = nn.CrossEntropyLoss(weight)
    for _ in range(8):
        optimizer.zero_grad()
        outputs = model(tensors["inputs"])
        criterion(outputs.flatten(0, -2), tensors["targets"].flatten()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    return model.state_dict()


def compare(directory, case):
    expected = train(directory, *case.split(":"))
    found = read_safetensors(f"{directory}/{case}/model.safetensors")
    assert set(expected) == set(found), (case, set(expected) ^ set(found))
    for name, tensor in expected.items():
        difference = (tensor - found[name]).abs().max().item()
        assert difference < 1e-5, f"{case}: {name}: differs from PyTorch's by {difference}"


if sys.argv[1] == "write":
    write(sys.argv[2])
else:
    torch.set_num_threads(1)
    torch._C._jit_set_profiling_executor(False)
    for case in sys.argv[3:]:
        compare(sys.argv[2], case)
