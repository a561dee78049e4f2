"""Frozen configurations, one a stage; unknown keys are refused. The command line is built from these."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from clas_lens.presets import EMBEDDED_MODEL

# The same choices as in statistics.py, categories.py and steering.py, which would load torch to say so.
Pooling = Literal["sample", "token", "last"]
Activity = Literal["mean", "abs_mean", "firing_rate"]
Specific = Literal["union", "current", "others"]
Positions = Literal["all", "last", "generated"]


class StageConfig(BaseModel):
    """Base of all configurations."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CollectConfig(StageConfig):
    """What to measure, and on which texts."""

    model: str = Field(EMBEDDED_MODEL, description="preset, Hub id, folder or .gguf file")
    backend: Literal["hooked", "bridge"] = Field("hooked", description="HookedTransformer or TransformerBridge")
    dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        None, description="default: bfloat16 on a GPU, else float32"
    )
    device: str | None = Field(None, description="default: the GPU if there is one")
    corpus: Literal["bundled", "xquad", "xnli", "files"] = Field("bundled", description="which parallel text")
    data: str | None = Field(
        None, description="local folder or Hub id of the corpus (for 'files': <language>.txt files)"
    )
    languages: tuple[str, ...] | None = Field(None, description="default: all that the corpus has")
    limit: int | None = Field(None, ge=1, description="examples a language, sampled with the seed; default: all")
    seed: int = Field(0, description="seed of the sample")
    batch_size: int = Field(16, ge=1, description="texts a forward pass")
    pooling: Pooling = Field("sample", description="how tokens become a mean")
    max_tokens: int = Field(512, ge=2, description="longer texts are cut here")


class CategorizeConfig(StageConfig):
    """When a neuron counts as active, and which layers to steer."""

    threshold: float = Field(0.0, description="a neuron is active above this")
    activity: Activity = Field("mean", description="what is compared with the threshold")
    layers: tuple[int, ...] | None = Field(
        None, description="bridge layers, 0-based; default: the paper's, or the rule's"
    )


class SteerConfig(StageConfig):
    """Strength and direction of CLAS."""

    alpha: float = Field(1.0, description="strength and sign")
    beta: float = Field(0.4, description="boost of partial-shared neurons")
    gamma: float = Field(0.2, description="cut of language-specific neurons")
    anchor: str = Field("en", description="the language that stays untouched")
    specific: Specific = Field("union", description="whose language-specific neurons are cut")
    positions: Positions = Field("all", description="which token positions are steered")


class DemoConfig(CollectConfig, CategorizeConfig, SteerConfig):
    """The whole pipeline in one go."""

    out: Path = Field(Path("runs/demo"), description="run folder")
    limit: int | None = Field(60, ge=1, description="examples a language, sampled with the seed (the corpus has 120)")
    answer_languages: tuple[str, ...] | None = Field(
        None, description="languages of the side-by-side answers; default: up to six of those measured"
    )
    questions: int = Field(3, ge=1, le=24, description="questions asked in each of them")
    max_new_tokens: int = Field(24, ge=1, description="length of an answer at most")
    effect_texts: int = Field(6, ge=1, le=24, description="bundled passages on which the effects are measured")

    @model_validator(mode="after")
    def _effects_need_texts(self) -> "DemoConfig":
        if self.positions == "generated":
            raise ValueError("the demo also measures effects on texts: positions must be 'all' or 'last' here")
        return self
