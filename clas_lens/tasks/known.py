"""The tasks that a study can name."""

from collections.abc import Mapping

from clas_lens.tasks.xnli import XNLI
from clas_lens.tasks.xquad import XQuAD
from clas_lens.vocabulary import TaskName

TASKS: Mapping[TaskName, type[XNLI] | type[XQuAD]] = {"xnli": XNLI, "xquad": XQuAD}
