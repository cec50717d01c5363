"""Training pipelines of matting: what becomes of a foreground, its matte and a background, by name."""

from indexnet.core.registry import import_modules
from indexnet.data.matting.pipelines.base import (
    Pipeline,
    Scene,
    Targets,
    create_pipeline,
    list_pipelines,
    register_pipeline,
)

import_modules(__name__, __path__)

__all__ = ["Pipeline", "Scene", "Targets", "create_pipeline", "list_pipelines", "register_pipeline"]
