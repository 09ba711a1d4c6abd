"""The zoo's models in PyTorch, under the names that ecopipe's tensors have: torchvision's own where it has them."""

import torchvision


def efficientnet_b0(classes):
    model = torchvision.models.efficientnet_b0(num_classes=classes)
    blocks = [block for stage in model.features[1:8] for block in stage]
    draws = {block.stochastic_depth: layer for layer, block in enumerate(blocks, 1)}
    draws[model.classifier[0]] = 19
    return model, draws


def shufflenet_v2_x1_0(classes):
    return torchvision.models.shufflenet_v2_x1_0(num_classes=classes), {}


NAMES = {"efficientnet_b0": efficientnet_b0, "shufflenet_v2_x1_0": shufflenet_v2_x1_0}


def build(name, classes):
    """The module, and those of its modules that draw random numbers: in which layer of ecopipe's model."""
    return NAMES[name](classes)
