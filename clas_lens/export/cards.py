"""Model cards: what an artefact is, what it was measured on, how strong it is, and what it is not."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clas_lens.artifacts import provenance, write_text
from clas_lens.corpus.content import CONTENT_PREFIX
from clas_lens.export.parity import Parity, WeightParity
from clas_lens.export.sources import described_model
from clas_lens.steering.intervention import Intervention

STEERS_EVERYTHING = (
    "Steering is in the weights here: it acts on every input, whatever language it is in, those in the anchor language "
    "({anchor}) too. Send only inputs in {languages} to it and all others to the unsteered model."
)
CAUTION = (
    "Steering changes what a model says by changing its inside, and nothing guarantees that only the use of a "
    "language changes: "
    "facts, tone, refusals and biases can change with it, for some languages more than for others. It is a "
    "tool for research. Measure "
    "it on your own task, in each language, against the unsteered model, and let speakers of the language read "
    "the output before "
    "anyone relies on it. Do not use it to evade safeguards."
)
ROUTES = {
    "adapter": (
        'model.set_adapter("{first}")  # inputs in {first}\n'
        "with model.disable_adapter():  # the anchor and all others\n    ..."
    ),
    "lora": "# one server, two names: send inputs in {first} to the adapter and all others to the base model",
    "gguf-lora": (
        '# llama-server: "lora": [{{"id": 0, "scale": 1.0}}] in requests in {first}, "scale": 0.0 in all others'
    ),
    "control-vector": "# llama-server takes it for all requests: one server with --control-vector, one without",
}
TWO_MODELS = (
    "import clas_lens as cl\n\nlanguages = cl.detect_languages(prompts, among=[{among}])\n"
    'answers = [(steered if code == "{first}" else unsteered)(prompt) for code, prompt in zip(languages, prompts)]'
)


def write_card(
    folder: Path,
    intervention: Intervention,
    languages: Sequence[str],
    base_model: str,
    format: str,
    parities: Sequence[Parity | WeightParity] = (),
) -> None:
    """Write `README.md`, with the Hub's header, and `steering.json`, the same facts for programs."""
    facts = card_facts(intervention, languages, base_model, format)
    write_text(folder / "steering.json", json.dumps(facts, indent=2, ensure_ascii=False, default=str) + "\n")
    write_text(folder / "README.md", card_text(facts, parities))


def card_facts(intervention: Intervention, languages: Sequence[str], base_model: str, format: str) -> dict[str, Any]:
    """Everything that a card says, JSON-able."""
    source = {key: value for key, value in intervention.source.items() if key != "example_keys"}
    tuned_on = getattr(intervention, "tuned_on", ())
    return {
        "format": format,
        "intervention": type(intervention).__name__,
        "languages": list(languages),
        "anchor": intervention.anchor,
        "settings": {key: value for key, value in intervention.settings().items() if key != "source"},
        "base_model": base_model,
        "measured_model": described_model(intervention).get("name"),
        "measured_on": source,
        "measured_examples": sum(
            not key.startswith(CONTENT_PREFIX) for key in intervention.source.get("example_keys", ())
        ),
        "tuned_examples": len(tuned_on),
        "fingerprint": intervention.fingerprint(),
        "provenance": provenance(),
    }


def card_text(facts: dict[str, Any], parities: Sequence[Parity | WeightParity] = ()) -> str:
    """The card in Markdown."""
    languages, first = ", ".join(facts["languages"]) or "any", (facts["languages"] or ["xx"])[0]
    header = {
        "base_model": facts["base_model"],
        "language": facts["languages"],
        "library_name": "peft"
        if facts["format"] in ("adapter", "lora")
        else "clas_lens"
        if not parities
        else "transformers",
        "tags": ["clas", "activation-steering", "cross-lingual", facts["format"]],
    }
    yaml = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in header.items() if value)
    settings = "\n".join(f"- {key}: `{_short(value)}`" for key, value in facts["settings"].items())
    measured = _short({key: value for key, value in facts["measured_on"].items() if value}) or "unknown"
    in_weights = facts["format"] != "intervention"
    among = ", ".join(f'"{code}"' for code in [facts["anchor"], *facts["languages"]])
    route = ROUTES.get(facts["format"], TWO_MODELS).format(first=first, among=among)
    warning = STEERS_EVERYTHING.format(anchor=facts["anchor"], languages=languages)
    parts = [
        f"---\n{yaml}\n---",
        f"# {facts['intervention']} for {languages}: {facts['format']} of {facts['base_model']}",
        f"**{warning}**\n\n```python\n{route}\n```"
        if in_weights
        else "Load it: `cl.export.from_pretrained(...)`, then `cl.steer`.",
        f"## Strength\n\n{settings}",
        f"## Measured on\n\nModel {facts['measured_model']}, {facts['measured_examples']} examples; {measured}. "
        "The strength was tuned "
        f"on {facts['tuned_examples']} examples. Fingerprint `{facts['fingerprint']}`.",
    ]
    if parities:
        parts.append("## The same as steering in Python?\n\n" + "\n".join(f"- {parity}" for parity in parities))
    parts.append(f"## Caution\n\n{CAUTION}")
    return "\n\n".join(parts) + "\n"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str).strip('"')
    return text if len(text) <= 400 else text[:400] + " ..."
