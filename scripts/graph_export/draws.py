"""Random draws that modules make by hand, as operators of ours: keyed in a pipeline, idle in evaluation."""

import torch

from .interpret import stochastic_depth as plain_stochastic_depth

# Classes of stochastic depth by their names, since everyone has an own copy: the attributes that hold the rate and the mode.
STOCHASTIC_DEPTH = {"StochasticDepth": ("p", "mode"), "DropPath": ("drop_prob", None), "SwinDropPath": ("drop_prob", None),
                    "ConvNextDropPath": ("drop_prob", None), "BeitDropPath": ("drop_prob", None), "Swinv2DropPath": ("drop_prob", None)}


@torch.library.custom_op("ecopipe::stochastic_depth", mutates_args=())
def operator(x: torch.Tensor, p: float, mode: str) -> torch.Tensor:
    return plain_stochastic_depth(x, p, mode).clone()


@operator.register_fake
def _(x, p, mode):
    return torch.empty_like(x)


def _no_backward(ctx, gradient):
    raise NotImplementedError("captured, never run")


operator.register_autograd(_no_backward, setup_context=lambda ctx, inputs, output: None)


def replace(model):
    """Every stochastic depth of the model calls our operator while it is captured, and draws as before when it is run."""
    for module in model.modules():
        attributes = STOCHASTIC_DEPTH.get(type(module).__name__)
        if attributes is None:
            continue
        rate, mode = attributes

        def forward(x, *_, module=module, rate=rate, mode=mode):
            p = float(getattr(module, rate) or 0.0)
            if not module.training or p == 0.0:
                return x
            if torch.compiler.is_exporting():
                return torch.ops.ecopipe.stochastic_depth(x, p, getattr(module, mode) if mode else "row")
            return plain_stochastic_depth(x, p, getattr(module, mode) if mode else "row")
        module.forward = forward


def silence(model):
    """No dropout of any kind any more."""
    for module in model.modules():
        for name in ("p", "drop_prob", "dropout", "attention_dropout", "dropout_p"):
            value = getattr(module, name, None)
            if isinstance(value, float) and (name != "p" or "rop" in type(module).__name__ or
                                             type(module).__name__ == "StochasticDepth"):
                setattr(module, name, 0.0)
