"""Networks as others write them: interpolation by function calls and modules, with and without skips."""

import torch
from torch import nn
from torch.nn import functional as F

EXAMPLE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def network(cls, *args, seed=0):
    """Build a network whose weights follow from a seed."""
    torch.manual_seed(seed)
    return cls(*args)


def conv(width, out, stride=1):
    return nn.Sequential(nn.Conv2d(width, out, 3, stride, 1), nn.BatchNorm2d(out), nn.ReLU())


class UpBlock(nn.Module):
    def __init__(self, width, skip, out):
        super().__init__()
        self.conv = conv(width + skip, out)

    def forward(self, x, skip=None):
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        return self.conv(x)


class UNet(nn.Module):
    """Three x2 function calls, the last without a skip; a pool each before the first two convolutions."""

    def __init__(self):
        super().__init__()
        self.pools = nn.ModuleList([nn.MaxPool2d(2) for _ in range(3)])
        self.encoders = nn.ModuleList([conv(3, 8), conv(8, 12), conv(12, 16)])
        self.decoders = nn.ModuleList([UpBlock(16, 12, 10), UpBlock(10, 8, 8), UpBlock(8, 0, 6)])
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        skips = []
        for pool, encoder in zip(self.pools, self.encoders, strict=True):
            skips.append(encoder(pool(x)))
            x = skips[-1]
        x = self.decoders[0](x, skips[1])
        x = self.decoders[1](x, skip=skips[0])
        return self.head(self.decoders[2](x))


class Lateral(nn.Module):
    """The lateral convolution comes after the interpolation, so the guide is what it reads."""

    def __init__(self, width, skip):
        super().__init__()
        self.lateral = nn.Conv2d(skip, width, 1)

    def forward(self, x, skip):
        x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
        skip = self.lateral(skip)
        return x + skip


class PyramidPooling(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(width, 4, 1) for _ in range(2)])

    def forward(self, x):
        maps = [x]
        for size, each in zip((1, 2), self.convs, strict=True):
            pooled = each(F.adaptive_avg_pool2d(x, size))
            maps.append(F.interpolate(pooled, size=x.shape[-2:], mode="bilinear", align_corners=False))
        return torch.cat(maps, 1)


class FPNDecoder(nn.Module):
    """A pyramid-pooling head inside of an owner that interpolates too, before and after."""

    def __init__(self):
        super().__init__()
        self.pyramid = PyramidPooling(16)
        self.top = nn.Conv2d(24, 8, 1)
        self.laterals = nn.ModuleList([Lateral(8, 12), Lateral(8, 6)])

    def forward(self, features):
        x = self.top(self.pyramid(features["c3"]))
        middle = self.laterals[0](x, features["c2"])
        fine = self.laterals[1](middle, features["c1"])
        return torch.cat([fine, F.interpolate(middle, scale_factor=2, mode="bilinear", align_corners=False)], 1)


class FPN(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.c2, self.c3 = conv(3, 6, 2), conv(6, 12, 2), conv(12, 16, 2)
        self.decoder = FPNDecoder()
        self.classify = nn.Conv2d(16, 5, 1)

    def forward(self, image):
        c1 = self.c1(image)
        c2 = self.c2(c1)
        x = self.decoder({"c1": c1, "c2": c2, "c3": self.c3(c2)})
        return F.interpolate(self.classify(x), scale_factor=2, mode="bilinear", align_corners=False)


class Modules(nn.Module):
    """Upsampling modules, guided by outputs of modules that run before them in the network."""

    def __init__(self, mode="nearest"):
        super().__init__()
        self.first, self.second, self.third = conv(3, 8), conv(8, 8, 2), conv(8, 8, 2)
        self.up2 = nn.Sequential(nn.Upsample(scale_factor=2, mode=mode), nn.Conv2d(8, 8, 3, padding=1))
        self.up1 = nn.UpsamplingNearest2d(scale_factor=2)
        self.out = nn.Conv2d(16, 3, 1)

    def forward(self, x):
        first = self.first(x)
        second = self.second(first)
        x = self.up2(self.third(second)) + second
        return self.out(torch.cat([self.up1(x), first], 1))


class Coupled(nn.Module):
    """Pools whose widths the decoder has again; one more convolution after each interpolation."""

    def __init__(self, widths=(8, 8), decoder=(8, 8)):
        super().__init__()
        self.encoders = nn.ModuleList([conv(3, widths[0]), conv(widths[0], widths[1])])
        self.pools = nn.ModuleList([nn.MaxPool2d(2, 2), nn.MaxPool2d(2, 2)])
        self.middle = conv(widths[1], decoder[1])
        self.decoders = nn.ModuleList([conv(decoder[0], 4), conv(decoder[1], decoder[0])])

    def forward(self, x):
        for encoder, pool in zip(self.encoders, self.pools, strict=True):
            x = pool(encoder(x))
        x = self.middle(x)
        for decoder in reversed(self.decoders):
            x = decoder(F.interpolate(x, scale_factor=2, mode="nearest"))
        return x
