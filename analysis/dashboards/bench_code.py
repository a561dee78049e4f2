"""A setting of the steering bench as code to copy."""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from clas_lens.steering.clas import Clas
from clas_lens.steering.intervention import Intervention
from clas_lens.steering.rules import Rule
from clas_lens.vocabulary import MaskKind


def bench_code(
    given: Intervention,
    name: str,
    numbers: Mapping[str, Any],
    *,
    prompt: str | Sequence[int],
    language: str,
    masks: MaskKind = "clas",
    seed: int = 0,
    max_new_tokens: int,
) -> str:
    """Lines that give the bench's continuation; `model`, the intervention (and for random masks `stats`) are there already.

    Args:
        given: the bench's intervention.
        name: of that, in code; "" stands for a name by its kind.
        numbers: what it is put at, by field.
    """
    known = name or (given.name if isinstance(given, Rule) else "clas" if isinstance(given, Clas) else "intervention")
    put = "".join(f", {field}={value!r}" for field, value in numbers.items())
    lines = ["import clas_lens as cl"]
    note = ["# `interventions` are those that the bench was given, by name."] if name else []
    lines += (
        ["from dataclasses import replace", "", *note, f"steered = replace({known}{put})"]
        if put
        else ["", *note, f"steered = {known}"]
    )
    match masks:
        case "clas":
            pass
        case "matched random":
            lines.append("magnitude = cl.baselines.neuron_magnitude(model, stats)")
            lines.append(f"steered = cl.RescaleMasks.matched_random(steered, magnitude, seed={seed})")
        case "other categories":
            lines.append("steered = cl.RescaleMasks.other_categories(steered)")
        case "uniform":
            lines.append("steered = cl.RescaleMasks.uniform(steered)")
        case _:
            assert_never(masks)
    asked = prompt if isinstance(prompt, str) else list(prompt)
    lines.append(f"with cl.steer(model, steered, language={language!r}):")
    lines.append(f"    print(cl.generate(model, [{asked!r}], max_new_tokens={max_new_tokens}))")
    return "\n".join(lines)
