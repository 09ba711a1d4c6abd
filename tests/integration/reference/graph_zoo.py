"""Models that no chain can hold, for tests of the exporter: each function returns the module and its example inputs."""

import torch
from torch import nn


def block(channels_in, channels_out):
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.bottom = block(3, 8), block(8, 16), block(16, 32)
        self.pool = nn.MaxPool2d(2)
        self.up2, self.join2 = nn.ConvTranspose2d(32, 16, 2, stride=2), block(32, 16)
        self.up1, self.join1 = nn.ConvTranspose2d(16, 8, 2, stride=2), block(16, 8)
        self.drop = nn.Dropout2d(0.1)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x):
        a = self.down1(x)
        b = self.down2(self.pool(a))
        y = self.up2(self.bottom(self.pool(b)))
        y = self.up1(self.join2(torch.cat([y, b], 1)))
        return self.head(self.drop(self.join1(torch.cat([y, a], 1)))).flatten(2).transpose(1, 2)  # a class for each pixel


class TwoBranches(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = block(3, 8)
        self.left = nn.Sequential(block(8, 16), block(16, 16))
        self.right = nn.Sequential(block(8, 16), block(16, 16))
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = self.stem(x)
        return self.head(torch.cat([self.left(x), self.right(x)], 1).mean((2, 3)))


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(100, 16)
        self.first, self.second = nn.LSTM(16, 32, batch_first=True), nn.LSTM(32, 32, batch_first=True)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(32, 4)

    def forward(self, tokens):
        y, _ = self.first(self.embed(tokens))
        y, _ = self.second(self.drop(y))
        return self.head(y[:, -1])


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.heads = heads
        self.dropout_p = 0.1

    def forward(self, x, mask):
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        causal = torch.full((length, length), float("-inf")).triu(1)
        a = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :] + causal,
                                                       dropout_p=self.dropout_p if self.training else 0.0)
        x = x + self.out(a.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm2(x))


class Causal(nn.Module):
    """Two inputs, and an embedding that is the head's weight too."""

    def __init__(self, vocabulary=64, width=32, blocks=4, length=16):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(torch.randn(1, length, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, 4) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens, mask):
        x = self.embed(tokens) + self.places
        for each in self.blocks:
            x = each(x, mask)
        return self.head(self.norm(x))


def unet():
    return UNet(), (torch.rand(2, 3, 16, 16),)


def two_branches():
    return TwoBranches(), (torch.rand(2, 3, 16, 16),)


def lstm():
    return Lstm(), (torch.randint(0, 100, (2, 12)),)


def causal():
    return Causal(), (torch.randint(0, 64, (2, 16)), torch.zeros(2, 16))


def small_vit():
    import torchvision
    return torchvision.models.VisionTransformer(image_size=32, patch_size=8, num_layers=4, num_heads=4, hidden_dim=48, mlp_dim=96,
                                                dropout=0.1, num_classes=10), (torch.rand(2, 3, 32, 32),)


def sequential():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 31 * 31, 10))


def refused_branch():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            if x.sum() > 0:
                return self.fc(x)
            return -self.fc(x)
    return Branch(), (torch.rand(2, 4),)


def refused_batch():
    class FixedBatch(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(12, 4)

        def forward(self, x):
            return self.fc(x.view(2, -1))
    return FixedBatch(), (torch.rand(2, 3, 4),)


def refused_mode():
    class OtherInTraining(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(x).tanh() if self.training else self.fc(x).relu()
    return OtherInTraining(), (torch.rand(2, 4),)


def refused_write():
    class WritesAView(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            y = self.fc(x)
            y[:, 0] += 1
            return y
    return WritesAView(), (torch.rand(2, 4),)
