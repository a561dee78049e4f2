"""What we know by heart about a few models: where they live, how they are prompted, the paper's bridge layers."""

from dataclasses import dataclass

from clas_lens.vocabulary import PromptStyle


@dataclass(frozen=True)
class ModelPreset:
    """One model that `load_model` knows by a short name.

    `signature` is (layers, MLP neurons per layer, vocabulary): what is left of a model's identity in a renamed local copy.
    """

    hub_id: str
    prompt_style: PromptStyle
    signature: tuple[int, int, int]
    bridge_layers: tuple[int, ...] | None = None


PRESETS: dict[str, ModelPreset] = {
    "llama-3.1-8b": ModelPreset("meta-llama/Llama-3.1-8B-Instruct", "chat", (32, 14336, 128256), tuple(range(24, 30))),
    "qwen-2.5-7b": ModelPreset("Qwen/Qwen2.5-7B-Instruct", "chat", (28, 18944, 152064), (24, 25)),
    "llama-3.2-1b": ModelPreset("meta-llama/Llama-3.2-1B-Instruct", "chat", (16, 8192, 128256)),
    "qwen-2.5-0.5b": ModelPreset("Qwen/Qwen2.5-0.5B-Instruct", "chat", (24, 4864, 151936)),
    "qwen-2.5-1.5b": ModelPreset("Qwen/Qwen2.5-1.5B-Instruct", "chat", (28, 8960, 151936)),
    "gemma-3-270m": ModelPreset("google/gemma-3-270m", "plain", (18, 2048, 262144)),
}


EMBEDDED_MODEL = "gemma-3-270m"


def paper_bridge_layers(n_layers: int, n_neurons: int, d_vocab: int) -> tuple[int, ...] | None:
    """The paper's bridge layers for a model of this signature, or None when it is not one of its two models."""
    for preset in PRESETS.values():
        if preset.bridge_layers and preset.signature == (n_layers, n_neurons, d_vocab):
            return preset.bridge_layers
    return None
