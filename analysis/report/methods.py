"""How a run was done, in sentences from its manifest alone, and the commands that do it again."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from clas_lens.models.units import site_of, units_in_words
from clas_lens.study.config import (
    CategorizeConfig,
    CollectConfig,
    DemoConfig,
    EvaluateCommand,
    SearchCommand,
    StageConfig,
)
from clas_lens.study.toml import study_toml
from clas_lens.vocabulary import ACTIVITY_TITLES, METHOD_TITLES, POSITION_TITLES, UnitSite

from ..style.numbers import number, percent
from .run import RunData

POOLING = {
    "sample": "the mean of h over a text's tokens (no padding, no BOS), then over texts",
    "token": "the mean of h over all tokens (no padding, no BOS)",
    "last": "the mean over texts of h at the last token",
}


SPECIFIC = {
    "union": "any language's specific neurons",
    "current": "the input language's own specific neurons",
    "others": "the other languages' specific neurons",
}


BACKENDS = {"hooked": "HookedTransformer", "bridge": "TransformerBridge"}


DATA_NAMES = {None: "the Hub", "bundled": "the bundled corpus"}


def methods_paragraphs(data: RunData) -> list[tuple[str, str]]:
    """(heading, text) a topic; only what the manifest records. Plain text, to be escaped."""
    RunData.given(data)
    parts = [
        ("Model", _model(data.facts("collect"))),
        ("Texts", _texts(data.facts("collect"))),
        ("Categories", _categories(data)),
        ("Steering", _steering(data)),
        *[(f"Task {data.title(task)}", _task(data, task)) for task in data.tasks],
        ("Statistics", _statistics(data)),
        ("Sentences", _sentences(data.facts("report data"))),
        ("Software", _software(data)),
    ]
    return [(heading, text) for heading, text in parts if text]


def _model(collect: Mapping[str, Any]) -> str:
    if not collect:
        return ""
    model, config = collect["model"], collect["config"]
    return (
        f"{model['name']}: {model['n_layers']} layers of {_units(model)}, in {model['dtype']}, as a "
        f"{BACKENDS[config['backend']]} of TransformerLens. Fingerprint of its weights: {model['weights']}."
    )


def _units(model: Mapping[str, Any]) -> str:
    if site_of(model) == "mlp":
        return f"{model['n_neurons']:,} MLP neurons"
    return f"{units_in_words(model, model['n_neurons'])} units of attention, measured before its output projection"


def _texts(collect: Mapping[str, Any]) -> str:
    if not collect:
        return ""
    config, languages = collect["config"], collect["languages"]
    sampled = f"sampled with seed {config['seed']}" if config["limit"] else "all there are"
    part = f", part {config['part']!r}" if config.get("part") else ""
    source = f" from {config['data']}" if config.get("data") else ""
    cut = {code: text["truncated"] for code, text in collect["texts"].items() if text["truncated"]}
    cuts = ", ".join(f"{n} in {code}" for code, n in cut.items())
    return (
        f"{len(collect['examples'])} parallel texts in each of {len(languages)} languages ({', '.join(languages)}) of the "
        f"corpus {config['corpus']}{part}{source}, {sampled}: {sum(collect['n_tokens'].values()):,} tokens in all. "
        + (
            f"Cut at {config['max_tokens']} tokens: {cuts}."
            if cut
            else f"None is longer than {config['max_tokens']} tokens."
        )
    )


WHAT_H_IS: Mapping[UnitSite, str] = {
    "mlp": "h is the input of an MLP's down projection. A neuron's",
    "attn": "h is the input of attention's output projection, the heads side by side; a component is called a neuron here. Its",
}


def _categories(data: RunData) -> str:
    collect, entry = data.facts("collect"), data.facts("categorize")
    if not entry or not collect:
        return ""
    config = entry["config"]
    chosen = "given" if config["layers"] else "the paper's, or by the rule of select_bridge_layers"
    return (
        f"{WHAT_H_IS[site_of(collect['model'])]} value in a language is "
        f"{POOLING[collect['config']['pooling']]}; it is active where its {ACTIVITY_TITLES[config['activity']]} is above "
        f"{_bar(config)}. Active in no language: dead; in one: language-specific; in all {len(entry['languages'])}: "
        f"all-shared; otherwise partial-shared. Bridge layers ({chosen}): {_listed(entry['bridge_layers'])}."
    )


def _bar(config: Mapping[str, Any]) -> str:
    quantile = config.get("quantile")
    return (
        number(config["threshold"])
        if quantile is None
        else f"its layer's {number(100 * quantile)}th percentile over languages"
    )


def _steering(data: RunData) -> str:
    steered = data.facts("report data").get("steered") or {}
    if not steered:
        return ""
    first = next(iter(steered.values()))
    strengths = "; ".join(
        f"alpha {number(one['alpha'])}{'' if name == 'clas' else f' on {name}'}" for name, one in steered.items()
    )
    return (
        f"CLAS multiplies h in the bridge layers, {POSITION_TITLES[first['positions']]}, by 1 + alpha * beta for "
        f"partial-shared neurons and by 1 - alpha * gamma for {SPECIFIC[first['specific']]}, with beta "
        f"{number(first['beta'])}, gamma {number(first['gamma'])} and {strengths}. Inputs in {first['anchor']} are left "
        "exactly as they are. Weights do not change."
    )


def _task(data: RunData, task: str) -> str:
    entry, search = data.facts(f"evaluate {task}"), data.facts(f"search {task}")
    if not entry:
        return ""
    settings, source = entry["task"], entry["source"]
    rows = data.rows[task]
    base = rows[rows["intervention"] == rows["intervention"].iloc[0]]
    sentences = [
        f"{entry['n_examples']:,} examples in each of {len(entry['languages'])} languages from "
        f"{DATA_NAMES.get(source['data'], source['data'])}, prompt {settings['prompt']}, instruction "
        f"{'in English' if settings['instruction'] == 'en' else 'in the language itself'}.",
        f"Compared: the unsteered model{''.join(f'; {_method(name)}' for name in entry['methods'] if name != 'base')}.",
    ]
    if "gold_lost" in base:
        sentences.append(
            f"Greedy answers of at most {settings['max_new_tokens']} tokens; contexts alone are cut to fit: "
            f"{percent(int(base['truncated'].sum()), len(base))} were, and "
            f"{percent(int(base['gold_lost'].sum()), len(base))} lost the answer with it."
        )
    elif "truncated" in base:
        sentences.append(f"Prompts that were cut: {percent(int(base['truncated'].sum()), len(base))}.")
    overlap = entry["overlapping"]
    if search:
        chosen = ", ".join(f"{name} {number(one['alpha'])}" for name, one in search["chosen"].items())
        sentences.append(
            f"Strengths (alpha) were searched on {len(search['examples']):,} {'' if overlap else 'other '}examples a language: "
            f"{chosen}."
        )
    sentences.append(
        f"{overlap:,} of the {len(rows):,} answers are to examples that an intervention was measured or tuned on: scores "
        "there are optimistic."
        if overlap
        else "No reported example was used to measure or tune an intervention."
    )
    return " ".join(sentences)


def _method(name: str) -> str:
    stem, _, draw = name.rpartition("-")
    if name not in METHOD_TITLES and stem in METHOD_TITLES and draw.isdigit():
        return f"{METHOD_TITLES[stem]} (draw {draw})"
    return METHOD_TITLES.get(name, name)


def _statistics(data: RunData) -> str:
    found = next((one for task in data.tasks for one in data.comparisons.get(task, [])), None)
    if found is None:
        return ""
    how = "Student's t over" if found.interval == "t" else f"{found.n_boot:,} bootstrap draws of"
    return (
        f"{number(100 * found.confidence)}% intervals by {how} groups of examples, jointly in all languages. "
        f"Within a language {found.languages['test'].iloc[0]} tests, of groups of examples if by sign-flips, corrected over "
        "languages (Holm). Over languages a paired t-test, Wilcoxon's and sign-flips, without the anchor; these hold for the "
        "given examples only, since translations rise and fall together."
    )


def _sentences(entry: Mapping[str, Any]) -> str:
    if not entry:
        return ""
    return (
        f"Sentences are the mean residual stream over content tokens at a layer's output, of {entry['examples']} parallel "
        f"texts of the corpus {entry['corpus']}. Cosines are of parallel pairs with the anchor, which is unsteered in both, "
        "averaged over pairs and bridge layers. Maps: one t-SNE of both conditions at the last layer but one."
    )


def _software(data: RunData) -> str:
    entries = [entry["provenance"] for entry in data.manifest.values() if "provenance" in entry]
    if not entries:
        return ""
    last = max(entries, key=lambda one: str(one["made"]))
    kept = {
        "Activations that were kept were measured": [data.facts("collect")],
        "Answers that were kept were given": [data.facts(f"evaluate {task}") for task in data.tasks],
    }
    told = "".join(f" {what} with {earlier}." for what, of in kept.items() if (earlier := _earlier(of, last)))
    return f"{_versions(last)}. Last stage: {last['made']}.{told}"


def _earlier(entries: Sequence[Mapping[str, Any]], last: Mapping[str, Any]) -> str:
    """The versions that these stages' results were made with where they are not the last stage's."""
    measured = [_versions(one) for entry in entries for one in entry.get("measured", ())]
    return " and with ".join(one for one in dict.fromkeys(measured) if one != _versions(last))


def _versions(made: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items() if version)
    commit = f", commit {made['git_commit'][:12]}" if made["git_commit"] else ""
    return f"{versions}; Python {made['python']}{commit}"


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))


# --- commands ---

END = "END OF STUDY"


def reproduce_text(data: RunData) -> str:
    """The commands, and the study file where there was one, that make this run again."""
    manifest = data.manifest
    if "study" in manifest:
        config = manifest["study"]["config"]
        file = shlex.quote(f"{config['name']}.toml")
        return f"cat > {file} <<'{END}'\n{study_toml(config)}\n{END}\nclas-lens run {file}"
    if "demo" in manifest:
        return command("demo", DemoConfig, manifest["demo"]["config"])
    lines = []
    root = shlex.quote(str(data.run.root))
    if "collect" in manifest:
        lines.append(command("collect", CollectConfig, manifest["collect"]["config"], f"--out {root}"))
    if "categorize" in manifest:
        lines.append(command("categorize", CategorizeConfig, manifest["categorize"]["config"], root))
    kinds: dict[str, type[StageConfig]] = {"search": SearchCommand, "evaluate": EvaluateCommand}
    for stage, entry in manifest.items():
        name, _, task = stage.partition(" ")
        if name in kinds:
            values = {**entry.get("source", {"task": task}), **entry["config"]}
            lines.append(command(name, kinds[name], values, root))
    return "\n".join(lines)


def command(name: str, kind: type[StageConfig], values: Mapping[str, Any], *words: str) -> str:
    """`clas-lens NAME` with the options that are not at their defaults, quoted for a shell."""
    parts = ["clas-lens", name, *words]
    for option, field in kind.model_fields.items():
        value = values.get(option, field.default)
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        if value is None or value == default:
            continue
        flag = option.replace("_", "-")
        if isinstance(value, bool):
            parts.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words_of = value if isinstance(value, list | tuple) else [value]
            parts += [f"--{flag}", *(shlex.quote(str(word)) for word in words_of)]
    return " ".join(parts)
