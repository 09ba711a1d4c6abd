"""The zoo's models in PyTorch, under the names that ecopipe's tensors have: torchvision's own where it has them."""

import torch
import torchvision
from torch import nn
from torch.nn import functional as F


def efficientnet_b0(classes):
    model = torchvision.models.efficientnet_b0(num_classes=classes)
    blocks = [block for stage in model.features[1:8] for block in stage]
    draws = {block.stochastic_depth: layer for layer, block in enumerate(blocks, 1)}
    draws[model.classifier[0]] = 19
    return model, draws


def shufflenet_v2_x1_0(classes):
    return torchvision.models.shufflenet_v2_x1_0(num_classes=classes), {}


def shuffle(x, groups):
    n, channels, height, width = x.shape
    return x.view(n, groups, channels // groups, height, width).transpose(1, 2).reshape(x.shape)


class GroupedUnit(nn.Module):
    """Figure 2 of Zhang et al., ShuffleNet (CVPR 2018)."""

    def __init__(self, inputs, outputs, stride, first_groups, groups):
        super().__init__()
        inner = outputs // 4
        self.stride, self.groups = stride, groups
        self.conv1 = nn.Conv2d(inputs, inner, 1, groups=first_groups, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs - inputs if stride == 2 else outputs, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(self.conv3.out_channels)

    def forward(self, x):
        y = shuffle(F.relu(self.bn1(self.conv1(x))), self.groups)
        y = self.bn3(self.conv3(self.bn2(self.conv2(y))))
        return F.relu(x + y if self.stride == 1 else torch.cat([F.avg_pool2d(x, 3, 2, 1), y], 1))


class ShuffleNet(nn.Module):
    """Table 1 of the paper, three groups."""

    def __init__(self, classes, groups=3, widths=(240, 480, 960), repeats=(4, 8, 4)):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = 24
        for stage, (width, units) in enumerate(zip(widths, repeats), 2):
            # The very first pointwise convolution has too few inputs for groups.
            first = GroupedUnit(inputs, width, 2, 1 if stage == 2 else groups, groups)
            others = [GroupedUnit(width, width, 1, groups, groups) for _ in range(units - 1)]
            setattr(self, f"stage{stage}", nn.Sequential(first, *others))
            inputs = width
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = self.stage4(self.stage3(self.stage2(self.maxpool(self.conv1(x)))))
        return self.fc(x.mean([2, 3]))


def shufflenet_v1_g3(classes):
    return ShuffleNet(classes), {}


NAMES = {"efficientnet_b0": efficientnet_b0, "shufflenet_v2_x1_0": shufflenet_v2_x1_0, "shufflenet_v1_g3": shufflenet_v1_g3}


def build(name, classes):
    """The module, and those of its modules that draw random numbers: in which layer of ecopipe's model."""
    return NAMES[name](classes)
