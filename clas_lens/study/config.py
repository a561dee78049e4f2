"""Frozen configurations, one a stage; unknown keys are refused. The command line is built from these."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from clas_lens.models.installed import default_backend
from clas_lens.models.presets import EMBEDDED_MODEL
from clas_lens.vocabulary import (
    AFTER_PROMPTS,
    OF_THE_MLP,
    Activity,
    Backend,
    CorpusName,
    DType,
    Instruction,
    Method,
    Part,
    Pooling,
    Positions,
    PromptStyle,
    ReportTexts,
    Specific,
    TaskName,
    UnitSite,
    fits_activity,
)


class StageConfig(BaseModel):
    """Base of all configurations."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _each_once(cls, value: Any) -> Any:
        """Of a list of names or numbers each counts once: a second time is a slip, and would change what is averaged."""
        if isinstance(value, tuple):
            named = [one for one in value if isinstance(one, str | int | float)]
            twice = [one for place, one in enumerate(named) if one in named[:place]]
            if twice:
                raise ValueError(f"{twice[0]!r} is there twice")
        return value


class CollectConfig(StageConfig):
    """What to measure, and on which texts."""

    model: str = Field(EMBEDDED_MODEL, min_length=1, description="preset, Hub id, folder or .gguf file")
    backend: Backend = Field(
        default_backend(), description="HookedTransformer (TransformerLens 3) or TransformerBridge"
    )
    dtype: DType | None = Field(None, description="default: bfloat16 on a GPU, else float32")
    device: str | None = Field(None, min_length=1, description="default: the GPU if there is one")
    corpus: CorpusName = Field("bundled", description="which parallel text")
    data: str | None = Field(
        None, min_length=1, description="local folder or Hub id of the corpus (for 'files': <language>.txt files)"
    )
    languages: tuple[str, ...] | None = Field(None, min_length=1, description="default: all that the corpus has")
    part: Part | None = Field(None, description="only this part of the corpus (articles of XQuAD, passages of bundled)")
    limit: int | None = Field(None, ge=1, description="examples a language, sampled with the seed; default: all")
    seed: int = Field(0, ge=0, description="seed of the sample")
    batch_size: int = Field(16, ge=1, description="texts a forward pass")
    pooling: Pooling = Field("sample", description="how tokens become a mean")
    site: UnitSite = Field("mlp", description="whose units: MLP neurons, or the outputs of attention's heads")
    max_tokens: int = Field(512, ge=2, description="longer texts are cut here")

    @model_validator(mode="after")
    def _data_are_read(self) -> "CollectConfig":
        if self.corpus == "bundled" and self.data is not None:
            raise ValueError(
                f"data = {self.data!r} would not be read: the bundled corpus is its own; say which corpus it is"
            )
        return self


class CategorizeConfig(StageConfig):
    """When a neuron counts as active, and which layers to steer."""

    threshold: float = Field(0.0, description="a neuron is active above this")
    activity: Activity = Field("mean", description="what is compared with the threshold")
    quantile: float | None = Field(
        None, gt=0, lt=1, description="in place of the threshold: this quantile of the layer's own activities"
    )
    layers: tuple[int, ...] | None = Field(
        None, min_length=1, description="bridge layers, 0-based; default: the paper's, or the rule's"
    )

    @model_validator(mode="after")
    def _rates_are_shares(self) -> "CategorizeConfig":
        if not fits_activity(self.activity, self.threshold):
            raise ValueError(f"a {self.activity} threshold is in [0, 1), got {self.threshold:g}")
        return self


class SteerConfig(StageConfig):
    """Strength and direction of CLAS."""

    alpha: float = Field(1.0, description="strength and sign")
    beta: float = Field(0.4, description="boost of partial-shared neurons")
    gamma: float = Field(0.2, description="cut of language-specific neurons")
    anchor: str = Field("en", description="the language that stays untouched")
    specific: Specific = Field("union", description="whose language-specific neurons are cut")
    positions: Positions = Field("all", description="which token positions are steered")

    def strengths(self) -> dict[str, Any]:
        """Everything that `Clas` takes beside categories and layers."""
        return {name: getattr(self, name) for name in SteerConfig.model_fields}


class TaskConfig(StageConfig):
    """A task, its examples for tuning and its examples to report on."""

    task: TaskName = Field("xnli", description="which task")
    data: str | None = Field(None, min_length=1, description="local folder, Hub id or 'bundled'; default: the Hub's")
    languages: tuple[str, ...] | None = Field(None, min_length=1, description="default: all that the data have")
    tuning_limit: int | None = Field(
        200, ge=1, description="examples a language to tune on, sampled with the seed; in a study's file also 'all'"
    )
    limit: int | None = Field(None, ge=1, description="examples a language to report on; default: all")
    seed: int = Field(0, ge=0, description="seed of the samples")
    whole: bool = Field(False, description="XQuAD: tune and report on all of it, as the paper does")
    allow_overlap: bool = Field(False, description="report also on examples that were measured or tuned on")
    instruction: Instruction = Field("native", description="language of the instruction")
    style: PromptStyle | None = Field(None, description="default: chat for instruct models")
    max_tokens: int | None = Field(None, ge=16, description="longest prompt; XQuAD's contexts are cut to fit")
    max_new_tokens: int = Field(32, ge=1, description="XQuAD: length of an answer at most")
    stop_at_newline: bool = Field(False, description="XQuAD: end an answer at its first line")

    @field_validator("tuning_limit", mode="before")
    @classmethod
    def _all_in_a_file(cls, value: Any) -> Any:
        """TOML has no None."""
        return None if value == "all" else value


class MethodsConfig(StageConfig):
    """Which interventions are compared."""

    methods: tuple[Method, ...] = Field(("base", "clas"), min_length=1, description="interventions to compare")
    draws: int = Field(1, ge=1, description="random masks, noise directions and shuffled labels, each by itself")
    vector_layer: int | None = Field(
        None, ge=0, description="of diff-mean and incline; default: the first bridge layer"
    )
    lape_percentile: float = Field(95.0, gt=0, lt=100, description="of int-mu's LAPE neurons")
    lape_share: float = Field(0.01, gt=0, lt=1, description="of all neurons that LAPE takes")

    def searched(self, fixed: Sequence[Method]) -> list[tuple[str, Method]]:
        """Name and method of each intervention whose alpha is searched: all but the unsteered model and the fixed ones."""
        return [(name, method) for name, method, _ in self.named() if method != "base" and method not in fixed]

    def named(self) -> list[tuple[str, Method, int]]:
        """Name, method and seed of each intervention; draws are numbered where there are several."""
        found: list[tuple[str, Method, int]] = []
        for method in self.methods:
            if method in ("random", "noise", "shuffled") and self.draws > 1:
                found += [(f"{method}-{draw}", method, draw) for draw in range(self.draws)]
            else:
                found.append((method, method, 0))
        return found


class SearchConfig(StageConfig):
    """The search over alpha, the same for every method, and the grid over CLAS's beta and gamma, which chooses nothing."""

    alphas: tuple[float, ...] | None = Field(None, min_length=1, description="default: the paper's axis for the task")
    fixed: tuple[Method, ...] = Field((), description="methods that keep their alpha (int-mu's is 1)")
    betas: tuple[float, ...] = Field((), description="for Figure 6: CLAS at alpha 1 under each pair of these ...")
    gammas: tuple[float, ...] = Field((), description="... and these (the paper's curves are those at 0 of the other)")
    windows: bool = Field(
        False,
        description="search CLAS's alpha at every window of layers as wide as the bridge, too, which chooses nothing",
    )

    @model_validator(mode="after")
    def _pairs(self) -> "SearchConfig":
        if bool(self.betas) != bool(self.gammas):
            raise ValueError("a grid needs both betas and gammas")
        return self


class EvaluateConfig(StageConfig):
    """How evaluation runs; it changes results only by float error."""

    batch_size: int = Field(16, ge=1, description="prompts a forward pass")
    chunk_size: int = Field(128, ge=1, description="examples between two savings")


class ReportConfig(StageConfig):
    """What is collected for the figures of alignment and of single neurons."""

    texts: ReportTexts = Field("measured", description="the texts measured, or bundled sentences")
    examples: int = Field(default=100, ge=1, description="texts a language whose sentences are compared and mapped")
    neurons: int = Field(default=3, ge=1, description="neurons shown a language")
    neuron_languages: int = Field(
        default=6, ge=1, description="languages in which one neuron is shown before and after"
    )


class ClusterConfig(StageConfig):
    """Who does the work: the workers of a Ray cluster. It changes no result, and is no part of what a run folder records."""

    workers: int | None = Field(
        None, ge=1, description="default: as many as there are GPUs for, else as fit the memory"
    )
    gpus_per_worker: float | None = Field(
        None, ge=0, description="default: 1 where the cluster has GPUs, else 0; 0.5 puts two workers on one"
    )
    address: str | None = Field(
        None,
        min_length=1,
        description="of a Ray cluster that is there, or 'auto'; default: Ray is started on this machine",
    )


class EvaluateCommand(TaskConfig, MethodsConfig, SteerConfig, EvaluateConfig):
    """`clas-lens evaluate`: one task over a run folder."""


class SearchCommand(TaskConfig, MethodsConfig, SteerConfig, SearchConfig, EvaluateConfig):
    """`clas-lens search`: alpha for the methods of one task over a run folder."""

    methods: tuple[Method, ...] = Field(("clas",), min_length=1, description="interventions to search over")


class StudyConfig(StageConfig):
    """All stages of a study, as in a TOML file: one table a stage, and one [[tasks]] a task."""

    name: str = Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="names the run folder")
    collect: CollectConfig = CollectConfig()
    categorize: CategorizeConfig = CategorizeConfig()
    steer: SteerConfig = SteerConfig()
    methods: MethodsConfig = MethodsConfig()
    search: SearchConfig | None = None
    evaluate: EvaluateConfig = EvaluateConfig()
    report: ReportConfig = ReportConfig()
    tasks: tuple[TaskConfig, ...] = ()
    cluster: ClusterConfig | None = Field(None, exclude=True)  # where a study runs is not what it is

    @model_validator(mode="after")
    def _one_of_each_task(self) -> "StudyConfig":
        names = [task.task for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError(f"each task once, got {', '.join(names)}")
        if self.search is not None and not names:
            raise ValueError("a search needs a task: add [[tasks]]")
        return self

    @model_validator(mode="after")
    def _methods_have_their_site(self) -> "StudyConfig":
        gated = [method for method in self.methods.methods if method in OF_THE_MLP]
        if gated and self.collect.site != "mlp":
            raise ValueError(f"{gated[0]} changes neurons of the MLP: it needs site = 'mlp', not {self.collect.site!r}")
        return self


class DemoConfig(CollectConfig, CategorizeConfig, SteerConfig):
    """The whole pipeline in one go."""

    out: Path = Field(Path("runs/demo"), description="run folder")
    limit: int | None = Field(32, ge=1, description="examples a language, sampled with the seed (the corpus has 120)")
    answer_languages: tuple[str, ...] | None = Field(
        None, description="languages of the side-by-side answers; default: up to six of those measured"
    )
    questions: int = Field(2, ge=1, le=24, description="questions asked in each of them")
    max_new_tokens: int = Field(16, ge=1, description="length of an answer at most")
    effect_texts: int = Field(12, ge=1, le=24, description="bundled sentences on which the effects are measured")

    @model_validator(mode="after")
    def _effects_need_texts(self) -> "DemoConfig":
        if self.positions in AFTER_PROMPTS:
            raise ValueError("the demo also measures effects on texts: positions must be 'all' or 'last' here")
        return self


def wrong_values(error: ValidationError) -> str:
    """What is wrong with a configuration, in one line: each value by its name, and what it should be."""
    found = []
    for one in error.errors():
        place = ".".join(map(str, one["loc"]))
        found.append(f"{place}: {one['msg']}" if place else one["msg"])
    return "; ".join(found).replace("Value error, ", "")
