"""Tasks: one LightningModule each, on a shared base. A new task is one module here and one file in ``conf/task``."""

from indexnet.tasks.base import Picture, Task, create_optimizer, get_task, list_tasks, register_task
from indexnet.tasks.matting import MattingTask
from indexnet.tasks.reconstruction import ReconstructionTask

__all__ = [
    "MattingTask",
    "Picture",
    "ReconstructionTask",
    "Task",
    "create_optimizer",
    "get_task",
    "list_tasks",
    "register_task",
]
