"""A captured model: operators in the order in which they run, and what they are given. Nothing of torch.export is left in it."""

import dataclasses


class Refusal(Exception):
    """What cannot be had, for people: one line that names their file where it is known."""


@dataclasses.dataclass(frozen=True)
class Result:
    """Output `output` of operator `op`."""
    op: int
    output: int = 0


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A parameter, a buffer or a constant, by its name."""
    name: str


@dataclasses.dataclass(frozen=True)
class Input:
    name: str


@dataclasses.dataclass(frozen=True)
class Batch:
    """An integer that is a multiple of the batch size."""
    times: int


@dataclasses.dataclass(frozen=True)
class DType:
    name: str  # as in safetensors


@dataclasses.dataclass(frozen=True)
class MemoryFormat:
    name: str


@dataclasses.dataclass(frozen=True)
class ByMode:
    """A literal that is one in training and another in evaluation."""
    training: object
    evaluation: object


REFERENCES = (Result, Tensor, Input)


@dataclasses.dataclass
class Meta:
    """A tensor's element type and shape; dimensions are integers or Batch."""
    dtype: str
    shape: tuple

    def elements(self, batch):
        count = 1
        for size in self.shape:
            count *= size.times * batch if isinstance(size, Batch) else size
        return count


@dataclasses.dataclass
class Op:
    name: str  # "aten::add.Tensor", "ecopipe::dropout"
    args: list
    kwargs: dict
    outputs: list  # of Meta
    path: tuple = ()  # the modules that it stands in, outermost first
    where: str = ""  # file:line of the user's code

    def references(self):
        yield from references_in(self.args)
        yield from references_in(list(self.kwargs.values()))


def references_in(argument):
    if isinstance(argument, REFERENCES):
        yield argument
    elif isinstance(argument, list):
        for element in argument:
            yield from references_in(element)


def mapped(argument, change):
    """The argument with every reference replaced by what `change` makes of it."""
    if isinstance(argument, REFERENCES):
        return change(argument)
    if isinstance(argument, list):
        return [mapped(element, change) for element in argument]
    return argument


@dataclasses.dataclass
class Program:
    inputs: dict  # name: Meta
    ops: list
    outputs: list  # of references
    tensors: dict  # name: torch.Tensor, in the order of the state dict; constants last
    parameters: set
    frozen: set
    constants: set
    tied: list  # of lists of names of one tensor; operators know the first
    types: dict  # module path: class name
    all_inputs: list  # names of all that forward takes, the unused ones too
