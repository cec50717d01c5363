"""Which operations happen to what of a sample, how often: the names that ``data.augment`` takes.

Sources: Dai et al., "Boosting Robustness of Image Matting with Context Assembling and Strong Data Augmentation", CVPR
2022, section 5.3: foreground (AF), foreground and background (AFB) and the whole composite (AC); their first experiment
for ``da``. That AF and AFB exclude each other, and that AC's share is one of the samples without them, is our reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from indexnet.data.base import Float32, UInt8, check_choice, planes
from indexnet.data.matting.augmentation.linear import LINEAR, WHITE, Change, Draw
from indexnet.data.matting.augmentation.other import NONLINEAR, REGION, gaussian_blur, jpeg
from indexnet.data.matting.pipelines.base import Targets

AUGMENTATIONS: Mapping[str, Mapping[str, float]] = {
    "none": {},
    "da": {},
    "da+alpha": {},
    "af": {"af": 0.5},
    "afb": {"afb": 0.5},
    "af+afb": {"af": 0.25, "afb": 0.25},
    "af+afb+ac": {"af": 0.25, "afb": 0.25, "ac": 0.05},  # 0.1 of the samples in which neither of the others happens
}
"""Of every name, how often the foreground, foreground and background, or the composite is changed; one at most."""

CATEGORIES: Mapping[str, Mapping[str, Draw]] = {"linear": LINEAR, "nonlinear": NONLINEAR, "region": REGION}
SHARES: Mapping[str, Mapping[str, float]] = {
    "af": {"linear": 0.8, "nonlinear": 0.1, "region": 0.1},
    "afb": {"linear": 0.8, "nonlinear": 0.1, "region": 0.1},
    "ac": {"linear": 0.2, "nonlinear": 0.4, "region": 0.4},
}
"""How often an operation of a category is drawn; all operations of one category are equally likely."""
_DA = 0.25  # how often blur, and how often compression


class Drawn(NamedTuple):
    """An operation that was drawn: its category, its name, and what it does."""

    category: str
    name: str
    change: Change


@dataclass(frozen=True)
class Augmented:
    """A sample's targets, and what a loss must know of them.

    Attributes:
        targets: of the sample.
        composed: whether the image is ``alpha fg + (1 - alpha) bg``.
        changed: the image after an operation that no alpha explains, (H, W, 3), float32 on the scale of 0..255: it is
            to be trained on with a pseudo label. None: there is none.
    """

    targets: Targets
    composed: bool = True
    changed: Float32 | None = None

    def tensors(self, name: str, pseudo: bool = False) -> dict[str, Tensor]:
        """Return the targets as tensors, and beside them what an augmentation of this ``name`` adds.

        Nothing by ``none``, else ``composed``, bool; with AC ``augmented``, (3, H, W) in [0, 1], the image or what
        became of it, and ``pseudo``, bool, whether something became of it. All of these where ``pseudo`` asks for them.
        """
        found = self.targets.tensors()
        if name == "none" and not pseudo:
            return found
        found["composed"] = torch.tensor(self.composed)
        if pseudo or needs_pseudo_labels(name):
            found["augmented"] = found["image"] if self.changed is None else planes(self.changed)
            found["pseudo"] = torch.tensor(self.changed is not None)
        return found


def check_augment(name: str) -> str:
    """Return a name of :data:`AUGMENTATIONS`.

    Raises:
        UserError: it is none.
    """
    check_choice("data.augment", name, list(AUGMENTATIONS))
    return name


def needs_pseudo_labels(name: str) -> bool:
    """Whether an augmentation makes samples whose alpha is to be predicted."""
    return "ac" in AUGMENTATIONS[name]


def draw_kind(name: str, rng: np.random.Generator) -> str | None:
    """Draw what is changed: ``af``, ``afb``, ``ac`` or, None, nothing."""
    drawn = float(rng.random())
    for kind, share in AUGMENTATIONS[name].items():
        if drawn < share:
            return kind
        drawn -= share
    return None


def draw_operation(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> Drawn:
    """Draw a category, then one of its operations, then an instance of it for images of a shape (H, W, 3)."""
    shares = SHARES[kind]
    category = str(rng.choice(list(shares), p=list(shares.values())))
    name = str(rng.choice(list(CATEGORIES[category])))
    return Drawn(category, name, CATEGORIES[category][name](shape, rng))


def augment(name: str, targets: Targets, rng: np.random.Generator) -> Augmented:
    """Change a sample's colours; crop, alpha and trimap stay (alpha but for ``da+alpha``).

    AF and AFB change the layers before they are composed. So does a linear operation of AC: one instance for both
    layers, so that alpha stays what it was. The other operations of AC change the composite.

    Args:
        name: of :data:`AUGMENTATIONS`; with ``none`` nothing is drawn.
        targets: as a pipeline has made them.
        rng: source of what is random.
    """
    if name.startswith("da"):
        return _degraded(targets, name == "da+alpha", rng)
    kind = draw_kind(name, rng) if AUGMENTATIONS[name] else None
    if kind is None:
        return Augmented(targets)
    fg, bg = (layer.astype(np.float32) for layer in (targets.fg, targets.bg))
    if kind == "ac":
        drawn = draw_operation(kind, fg.shape, rng)
        if drawn.category == "linear":
            return Augmented(composed(targets, drawn.change(fg), drawn.change(bg)))
        return Augmented(targets, changed=drawn.change(targets.image.astype(np.float32)))
    fg = draw_operation(kind, fg.shape, rng).change(fg)
    if kind == "afb":
        bg = draw_operation(kind, bg.shape, rng).change(bg)
    return Augmented(composed(targets, fg, bg))


def composed(targets: Targets, fg: Float32, bg: Float32) -> Targets:
    """Return the targets with other layers, and their composite, which is not rounded.

    Args:
        targets: alpha and trimap stay.
        fg: (H, W, 3), float32 on the scale of 0..255.
        bg: likewise.
    """
    weight = targets.alpha.astype(np.float32)[..., None] / WHITE
    return targets._replace(image=weight * fg + (1 - weight) * bg, fg=fg, bg=bg)


def _degraded(targets: Targets, alpha_too: bool, rng: np.random.Generator) -> Augmented:
    """Blur and compress the composite, each with its own chance; with ``alpha_too`` alpha in the same way."""
    image: UInt8 | Float32 = targets.image
    alpha: UInt8 | Float32 = targets.alpha
    hit = False
    for draw in (gaussian_blur, jpeg):
        if rng.random() < _DA:
            hit, change = True, draw(image.shape, rng)
            image = change(image.astype(np.float32))
            alpha = change(alpha.astype(np.float32)) if alpha_too else alpha
    return Augmented(targets._replace(image=image, alpha=alpha), composed=not hit)
