"""Tasks: one LightningModule each, on a shared base. A new task is one module here and one file in ``conf/task``."""

from indexnet.tasks.base import Picture, Task, create_task, get_task, list_tasks, metric_key, register_task
from indexnet.tasks.optimizers import create_optimizer

__all__ = [
    "Picture",
    "Task",
    "create_optimizer",
    "create_task",
    "get_task",
    "list_tasks",
    "metric_key",
    "register_task",
]
