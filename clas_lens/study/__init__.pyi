from clas_lens.study.config import StudyConfig as StudyConfig
from clas_lens.study.config import StudyError as StudyError
from clas_lens.study.config import load_study as load_study
from clas_lens.study.config import shipped_studies as shipped_studies
from clas_lens.study.folder import RunFolder as RunFolder
from clas_lens.study.order import run_study as run_study
from clas_lens.study.plan import plan_study as plan_study
from clas_lens.study.run import Run as Run
