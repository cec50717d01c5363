from __future__ import annotations

import numpy as np
import pytest
import torch

from indexnet.core.conventions import unknown_mask
from indexnet.losses import matting_loss


def batch(n=2, size=6, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)

    def draw(channels):
        return torch.rand(n, channels, size, size, generator=g, dtype=dtype)

    trimap = torch.tensor([0.0, 128 / 255, 1.0], dtype=dtype)[torch.randint(0, 3, (n, 1, size, size), generator=g)]
    return {"alpha": draw(1), "trimap": trimap, "fg": draw(3), "bg": draw(3), "image": draw(3)}, draw(1)


def test_matting_loss_is_the_released_one(shared):
    z = np.load(shared / "fixtures/official/loss.npz")
    target = torch.from_numpy(z["gt"])  # alpha, mask, fg, bg, composite
    alpha, mask, fg, bg, image = torch.split(target, [1, 1, 3, 3, 3], dim=1)
    losses = matting_loss(torch.from_numpy(z["pd"]), alpha, mask * 128 / 255, fg, bg, image)
    assert losses["loss"].item() == pytest.approx(float(z["total"]), abs=1e-6)
    assert losses["alpha"].item() == pytest.approx(float(z["alpha"]), abs=1e-6)
    assert losses["composition"].item() == pytest.approx(float(z["comp"]), abs=1e-6)


def test_matting_loss_against_loops():
    target, prediction = batch(dtype=torch.float64)
    alpha_losses, compositions = [], []
    for n in range(2):
        known = [[round(float(v) * 255) != 128 for v in row] for row in target["trimap"][n, 0]]
        area = sum(not k for row in known for k in row)
        la = lc = 0.0
        for y in range(6):
            for x in range(6):
                m = 0.0 if known[y][x] else 1.0
                a = float(prediction[n, 0, y, x])
                la += np.hypot(m * (a - float(target["alpha"][n, 0, y, x])), 1e-6)
                for c in range(3):
                    mixed = a * float(target["fg"][n, c, y, x]) + (1 - a) * float(target["bg"][n, c, y, x])
                    lc += np.hypot(m * (mixed - float(target["image"][n, c, y, x])), 1e-6)
        alpha_losses.append(la / area)
        compositions.append(lc / area)
    losses = matting_loss(prediction, **target)
    assert losses["alpha"].item() == pytest.approx(np.mean(alpha_losses), abs=1e-12)
    assert losses["composition"].item() == pytest.approx(np.mean(compositions), abs=1e-12)
    assert losses["loss"].item() == pytest.approx(0.5 * np.mean(alpha_losses) + 0.5 * np.mean(compositions), abs=1e-12)


def test_matting_loss_of_samples_without_unknown_pixels():
    target, prediction = batch()
    whole = matting_loss(prediction[1:], **{k: v[1:] for k, v in target.items()})
    target["trimap"][0] = 1.0
    prediction.requires_grad_()
    losses = matting_loss(prediction, **target)
    losses["loss"].backward()
    assert losses["loss"].item() == pytest.approx(whole["loss"].item() / 2, rel=1e-6)  # the other sample counts as zero
    assert prediction.grad is not None
    assert torch.isfinite(prediction.grad).all()
    assert prediction.grad[0].abs().max() == 0
    assert prediction.grad[1].abs().max() > 0
    target["trimap"][:] = 0.0
    assert matting_loss(prediction, **target)["loss"].item() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_matting_loss_in_half_precision_has_finite_gradients(dtype):
    target, prediction = batch()
    prediction = target["alpha"].to(dtype).requires_grad_()  # zero difference where eps^2 underflows
    losses = matting_loss(prediction, **{k: v if k == "trimap" else v.to(dtype).float() for k, v in target.items()})
    losses["alpha"].backward()
    assert losses["loss"].dtype == torch.float32
    assert prediction.grad is not None
    assert torch.isfinite(prediction.grad).all()


def test_matting_loss_gradient():
    target, prediction = batch(n=1, size=3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda p: matting_loss(p, **target)["loss"], prediction.requires_grad_(), eps=1e-7, atol=1e-5
    )


def test_matting_loss_refuses_shapes_that_would_broadcast():
    target, prediction = batch()
    target["alpha"] = target["alpha"][:1]
    with pytest.raises(ValueError, match="expected"):
        matting_loss(prediction, **target)


def test_unknown_mask_takes_exactly_128():
    values = torch.tensor([0, 1, 127, 128, 129, 254, 255]).float().view(1, 1, 1, -1) / 255
    assert unknown_mask(values).flatten().tolist() == [False, False, False, True, False, False, False]
