"""Tasks: examples in many languages, their prompts, and how an answer becomes a scored row."""

from clas_lens.tasks.base import Example, Task, TaskError
from clas_lens.tasks.xnli import XNLI
from clas_lens.tasks.xquad import XQuAD

__all__ = ["XNLI", "Example", "Task", "TaskError", "XQuAD"]
