"""The models of the comparison, as PyTorch programs write them."""
import torch
from torch import nn

from shapes import SHAPES


class Block(nn.Sequential):
    def __init__(self, channels_in, channels):
        super().__init__(nn.Conv2d(channels_in, channels, 3, padding=1, bias=False), nn.GroupNorm(8, channels), nn.ReLU())


def plain_cnn():
    """ecopipe's plain_cnn: nine blocks, pooling, a head; eleven layers."""
    layers = [Block(3 if i == 0 else 64, 64) for i in range(9)]
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, pool, nn.Linear(64, 10))


def mobilenet_v2():
    """torchvision's, as ecopipe's zoo cuts it: nineteen blocks, pooling, dropout, a head; twenty-two layers."""
    import torchvision
    model = torchvision.models.mobilenet_v2(num_classes=10)
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*model.features, pool, *model.classifier)


def whole(name):
    return {"plain_cnn": plain_cnn, "mobilenet_v2": mobilenet_v2}[name]()


def random_batch(name, batch):
    torch.manual_seed(0)
    return torch.rand(batch, *SHAPES[name]), torch.randint(0, 10, (batch,))
