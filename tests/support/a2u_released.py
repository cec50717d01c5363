"""A state dict by the names of the released A2U matting code, and its network written out from them."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

K_EN = 6


def a2u_state(channelwise: bool = False, k_up: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    """Values that keep activations in range; norms have weights of both signs."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, torch.Tensor] = {}

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    def conv(name, outputs, inputs, size):
        state[f"{name}.weight"] = draw(outputs, inputs, size, size) * math.sqrt(2 / (inputs * size**2))

    def norm(name, width):
        state[f"{name}.weight"], state[f"{name}.bias"] = 0.7 + 0.5 * draw(width), 0.1 * draw(width)
        state[f"{name}.running_mean"], state[f"{name}.running_var"] = 0.1 * draw(width), 1 + 0.1 * draw(width).abs()

    def block(name, inputs, outputs, kind):
        first, second = (f"{name}.layer1", f"{name}.layer2") if kind == "split" else (f"{name}.{kind}",) * 2
        conv(f"{first}.conv1", outputs, inputs, 3)
        norm(f"{first}.bn1", outputs)
        conv(f"{second}.conv2", outputs, outputs, 3)
        norm(f"{second}.bn2", outputs)
        if inputs != outputs:
            conv(f"{name}.proj_conv", outputs, inputs, 1)
            norm(f"{name}.proj_bn", outputs)

    def a2u(name, width):
        filters = width if channelwise else 1
        for part, outputs in (("UP", 4 * k_up**2), ("DP", 4 * k_up**2), ("U", filters), ("V", filters)):
            state[f"{name}.bconv_{part}.1.weight"] = draw(outputs, width, 1, 1) / math.sqrt(width)
            state[f"{name}.bconv_{part}.1.bias"] = 0.3 * draw(outputs)
        for part in ("bnu", "bnv"):
            state[f"{name}.{part}.0.weight"] = 1 + 0.5 * draw(width)
            state[f"{name}.{part}.0.bias"] = 0.2 * draw(width)

    conv("layer0.0", 64, 4, 7)
    norm("layer0.1", 64)
    a2u("bilinear0", 64)
    a2u("bilinear1", 64)
    for number in (1, 2, 3):
        block(f"layer1.block{number}", 64, 64, "convs")
    for layer, inputs, outputs in (("layer2", 64, 128), ("layer3", 128, 256)):
        block(f"{layer}_1", inputs, outputs, "split")
        a2u(f"{layer}_1.bilinear", outputs)
        for number in (1, 2, 3):
            block(f"{layer}_2.block{number}", outputs, outputs, "convs")
    for number in (1, 2, 3, 4):
        at = f"dconv_pp.aspp{number}.atrous_conv"
        conv(f"{at}.0", 256, 256 if number == 1 else 1, 1 if number == 1 else 3)
        norm(f"{at}.1", 256)
        if number > 1:
            conv(f"{at}.2", 256, 256, 1)
            norm(f"{at}.3", 256)
    conv("dconv_pp.global_avg_pool.1", 256, 256, 1)
    norm("dconv_pp.global_avg_pool.2", 256)
    conv("dconv_pp.bottleneck_conv.0", 256, 1280, 1)
    norm("dconv_pp.bottleneck_conv.1", 256)
    for number, skip, inputs, outputs in ((0, 4, 64, 32), (1, 64, 64, 64), (2, 64, 128, 64), (3, 128, 256, 128)):
        conv(f"short{number}.0", inputs, skip, 3)
        norm(f"short{number}.1", inputs)
        block(f"decoder_layer{number + 1}.dconv", inputs, outputs, "dep_sep_conv")
        block(f"decoder_layer{number + 1}.dconv1", outputs, outputs, "dep_sep_conv")
    conv("pred.0.0", 1, 32, 3)
    norm("pred.0.1", 1)
    conv("pred.1", 1, 1, 3)
    return state


def a2u_output(state: dict[str, torch.Tensor], x: torch.Tensor, k_up: int = 3) -> torch.Tensor:
    """The released network in evaluation mode, layer by layer, for an image (1, 4, H, W)."""

    def conv(y, name, **options):
        return F.conv2d(y, state[f"{name}.weight"], state.get(f"{name}.bias"), **options)

    def norm(y, name, leak=True):
        weight = state[f"{name}.weight"].abs() + 1e-5  # in-place normalisation
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        y = F.batch_norm(y, mean, var, weight, state[f"{name}.bias"], eps=1e-5)
        return F.leaky_relu(y, 0.01) if leak else y

    def block(y, name, kind):
        z = norm(conv(y, f"{name}.{kind}.conv1", padding=1), f"{name}.{kind}.bn1")
        z = norm(conv(z, f"{name}.{kind}.conv2", padding=1), f"{name}.{kind}.bn2", leak=False)
        if f"{name}.proj_conv.weight" in state:
            y = norm(conv(y, f"{name}.proj_conv"), f"{name}.proj_bn", leak=False)
        return F.leaky_relu(z + y, 0.01)

    def kernels(y, name):
        c, mean = y.shape[1], y.mean((2, 3), keepdim=True)
        encodings = []
        for part, group in (("U", "bnu"), ("V", "bnv")):
            filters = conv(F.adaptive_avg_pool2d(y, K_EN), f"{name}.bconv_{part}.1")[0]
            filters = filters.expand(c, -1, -1).unsqueeze(1)
            encoded = F.conv2d(y, filters, stride=2, padding=(K_EN - 1) // 2, groups=c)
            weight, bias = state[f"{name}.{group}.0.weight"], state[f"{name}.{group}.0.bias"]
            encodings.append(F.leaky_relu(F.group_norm(encoded, 32, weight, bias), 0.01))
        affinity = (encodings[0] * encodings[1]).sum(1, keepdim=True) / math.sqrt(c)
        up = F.pixel_shuffle(conv(mean, f"{name}.bconv_UP.1") * affinity, 2)
        down = conv(mean, f"{name}.bconv_DP.1") * affinity
        return down.softmax(1), torch.sigmoid(up).softmax(1) if k_up > 1 else torch.sigmoid(up)

    def halve(y, weights):
        taps = F.unfold(y, 2 * k_up, stride=2, padding=k_up - 1).unflatten(1, (y.shape[1], -1))
        return (taps * weights.flatten(2)).sum(2).unflatten(2, weights.shape[2:])

    def double(y, weights):
        taps = F.unfold(y, k_up, padding=k_up // 2).unflatten(1, (y.shape[1], -1)).unflatten(3, y.shape[2:])
        taps = taps.repeat_interleave(2, 3).repeat_interleave(2, 4)
        return (taps * weights.unsqueeze(1)).sum(2)

    ups, maps = [], [x]
    y = norm(conv(x, "layer0.0", padding=3), "layer0.1")
    for name in ("bilinear0", "bilinear1"):
        down, up = kernels(y, name)
        ups.append(up)
        y = halve(y, down)
        maps.append(y)
    maps.pop()
    for number in (1, 2, 3):
        y = block(y, f"layer1.block{number}", "convs")
    for layer in ("layer2", "layer3"):
        maps.append(y)
        z = norm(conv(y, f"{layer}_1.layer1.conv1", padding=1), f"{layer}_1.layer1.bn1")
        down, up = kernels(z, f"{layer}_1.bilinear")
        ups.append(up)
        z = norm(conv(halve(z, down), f"{layer}_1.layer2.conv2", padding=1), f"{layer}_1.layer2.bn2", leak=False)
        y = norm(conv(y, f"{layer}_1.proj_conv", stride=2), f"{layer}_1.proj_bn", leak=False)
        y = F.leaky_relu(z + y, 0.01)
        for number in (1, 2, 3):
            y = block(y, f"{layer}_2.block{number}", "convs")
    branches = [norm(conv(y, "dconv_pp.aspp1.atrous_conv.0"), "dconv_pp.aspp1.atrous_conv.1")]
    for number, rate in ((2, 6), (3, 12), (4, 18)):
        at = f"dconv_pp.aspp{number}.atrous_conv"
        z = norm(conv(y, f"{at}.0", padding=rate, dilation=rate, groups=256), f"{at}.1")
        branches.append(norm(conv(z, f"{at}.2"), f"{at}.3"))
    pooled = norm(conv(y.mean((2, 3), keepdim=True), "dconv_pp.global_avg_pool.1"), "dconv_pp.global_avg_pool.2")
    branches.append(pooled.expand_as(y))
    y = norm(conv(torch.cat(branches, 1), "dconv_pp.bottleneck_conv.0"), "dconv_pp.bottleneck_conv.1")
    for number in (3, 2, 1, 0):
        skip = norm(conv(maps[number], f"short{number}.0", padding=1), f"short{number}.1")
        y = block(double(y, ups[number]) + skip, f"decoder_layer{number + 1}.dconv", "dep_sep_conv")
        y = block(y, f"decoder_layer{number + 1}.dconv1", "dep_sep_conv")
    return conv(norm(conv(y, "pred.0.0", padding=1), "pred.0.1"), "pred.1", padding=1)
