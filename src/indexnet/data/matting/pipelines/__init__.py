"""Training pipelines of matting: what becomes of a foreground, its matte and a background, by name."""

from indexnet.data.matting.pipelines.base import (
    Pipeline,
    Scene,
    Targets,
    create_pipeline,
    list_pipelines,
    register_pipeline,
)

__all__ = ["Pipeline", "Scene", "Targets", "create_pipeline", "list_pipelines", "register_pipeline"]
