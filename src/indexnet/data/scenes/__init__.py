"""``scenes``: procedural objects with exact alpha, colours, depth and labels before photographs; needs no files."""

from indexnet.data.scenes.dataset import Scenes, SceneSamples
from indexnet.data.scenes.objects import CLASSES

__all__ = ["CLASSES", "SceneSamples", "Scenes"]
