"""The zoo's models in PyTorch, under the names that ecopipe's tensors have: torchvision's own where it has them."""

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

TOKENS = ("mobilebert",)  # these take token ids, the others images of three channels


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


class NoNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * self.weight + self.bias


class DenseNorm(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)
        self.LayerNorm = NoNorm(outputs)

    def forward(self, x, added=0):
        return self.LayerNorm(self.dense(x) + added)


def holder(**modules):
    """Names without a forward of their own."""
    module = nn.Module()
    for name, child in modules.items():
        module.add_module(name, child)
    return module


class Embeddings(nn.Module):
    def __init__(self):
        super().__init__()
        self.word_embeddings = nn.Embedding(30522, 128, padding_idx=0)
        self.position_embeddings = nn.Embedding(512, 512)
        self.token_type_embeddings = nn.Embedding(2, 512)
        self.embedding_transformation = nn.Linear(384, 512)
        self.LayerNorm = NoNorm(512)

    def forward(self, tokens):
        words = self.word_embeddings(tokens)
        nothing = torch.zeros_like(words[:, :1])
        trigrams = torch.cat([torch.cat([words[:, 1:], nothing], 1), words, torch.cat([nothing, words[:, :-1]], 1)], 2)
        places = self.position_embeddings(torch.arange(tokens.shape[1]))
        return self.LayerNorm(self.embedding_transformation(trigrams) + places + self.token_type_embeddings(tokens * 0))


class EncoderLayer(nn.Module):
    """Figure 1 (c) and table 1 of Sun et al., MobileBERT (ACL 2020), under Hugging Face's names."""

    def __init__(self):
        super().__init__()
        attention = holder(query=nn.Linear(128, 128), key=nn.Linear(128, 128), value=nn.Linear(512, 128), dropout=nn.Dropout(0.1))
        self.attention = holder(self=attention, output=DenseNorm(128, 128))
        self.intermediate = holder(dense=nn.Linear(128, 512))
        self.output = DenseNorm(512, 128)
        self.output.bottleneck = DenseNorm(128, 512)
        self.bottleneck = holder(input=DenseNorm(512, 128), attention=DenseNorm(512, 128))
        self.ffn = nn.ModuleList(holder(intermediate=holder(dense=nn.Linear(128, 512)), output=DenseNorm(512, 128)) for _ in range(3))

    def forward(self, x):
        own, shared = getattr(self.attention, "self"), self.bottleneck.attention(x)
        query, key, value = (module(values).unflatten(2, (4, 32)).transpose(1, 2)
                             for module, values in ((own.query, shared), (own.key, shared), (own.value, x)))
        weights = own.dropout(torch.softmax(query @ key.transpose(2, 3) / 32**0.5, -1))
        inside = self.attention.output((weights @ value).transpose(1, 2).flatten(2), self.bottleneck.input(x))
        for network in [*self.ffn, self]:
            inside = network.output(F.relu(network.intermediate.dense(inside)), inside)
        return self.output.bottleneck(inside, x)


class MobileBert(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.embeddings = Embeddings()
        self.encoder = holder(layer=nn.Sequential(*(EncoderLayer() for _ in range(24))))
        self.classifier = nn.Linear(512, classes)

    def forward(self, tokens):
        return self.classifier(self.encoder.layer(self.embeddings(tokens))[:, 0])


def mobilebert(classes):
    model = MobileBert(classes)
    return model, {getattr(block.attention, "self").dropout: layer for layer, block in enumerate(model.encoder.layer, 1)}


NAMES = {"efficientnet_b0": efficientnet_b0, "shufflenet_v2_x1_0": shufflenet_v2_x1_0, "shufflenet_v1_g3": shufflenet_v1_g3,
         "mobilebert": mobilebert}


def build(name, classes):
    """The module, and those of its modules that draw random numbers: in which layer of ecopipe's model."""
    return NAMES[name](classes)
