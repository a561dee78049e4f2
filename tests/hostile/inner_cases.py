"""Hostile inputs of what stands behind the first doors: tasks' options, prompts, tokens, models, sweeps, plain numbers."""

import copy
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hostile.case import Case, misused, refused
from hostile.measured_cases import COUNTS, FINITE, IN_RANGE, INF, NAN, WHOLE

import analysis
import clas_lens as cl

SEEDS = ["0", None, 1.5, NAN, -1, [1], True]
LONG = "Wort und mehr. " * 350_000  # five million characters
TOKENS = torch.tensor([[1, 5, 6]])


def _xnli(**options: Any) -> Any:
    return cl.tasks.XNLI(**{"source": "bundled", "languages": ("en", "de"), "limit": 1, **options})


def _xquad(**options: Any) -> Any:
    return cl.tasks.XQuAD(**{"source": "bundled", "languages": ("en", "de"), "limit": 1, **options})


def _prompts(world: SimpleNamespace, task: Any, **fields: str) -> Any:
    """The prompts of a task with other texts in its first example."""
    spoilt = copy.copy(task)
    first = replace(task.chosen["de"][0], fields={**task.chosen["de"][0].fields, **fields})
    object.__setattr__(spoilt, "chosen", {**task.chosen, "de": (first,)})
    return spoilt.prompts(world.model, "de")


def _sweep(world: SimpleNamespace, **options: Any) -> Any:
    given = {"model": world.model, "intervention": world.clas, "alphas": [1.0], "prompts": ["Tee"], "language": "de"}
    return cl.sweep(**{**given, "max_new_tokens": 1, **options})


def _damaged(world: SimpleNamespace, part: str, value: float) -> Any:
    """A copy of the model in which one weight that no other token sees is no number."""
    model = copy.deepcopy(world.model)
    weight = {name: one for name, one in model.named_parameters() if part in name}
    (first, *_), token = weight.values(), model.tokenizer("Hallo")["input_ids"][-1]
    with torch.no_grad():
        (first[:, token] if part == "unembed" else first[token]).fill_(value)
    return model


def _alone(act: Any) -> Any:
    """What `act` gives in a thread of its own, inside a `steer` of this one."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(act()))
    thread.start()
    thread.join()
    return found[0]


def _other_thread(world: SimpleNamespace) -> bool:
    before = world.model(TOKENS)
    with cl.steer(world.model, world.clas, language="de", must_fire=False):
        return torch.equal(_alone(lambda: world.model(TOKENS)), before)


def _other_thread_generates(world: SimpleNamespace) -> bool:
    """Two prompts in a thread beside one that steers a batch of one row."""
    before = cl.generate(world.model, ["Tee", "Reis und Tee"], max_new_tokens=3)
    with cl.steer(world.model, world.clas, language=["de"], must_fire=False):
        return _alone(lambda: cl.generate(world.model, ["Tee", "Reis und Tee"], max_new_tokens=3)) == before


def _entered_twice(world: SimpleNamespace) -> None:
    block = cl.steer(world.model, world.clas, language="de", must_fire=False)
    with block:
        pass
    with block:
        pass


def _reset_inside(world: SimpleNamespace) -> bool:
    before = world.model(TOKENS)
    with cl.steer(world.model, world.clas, language="de"):
        steered = world.model(TOKENS)
        world.model.reset_hooks()
        again = world.model(TOKENS)
    return torch.equal(steered, again) and torch.equal(world.model(TOKENS), before)


TASKS = [
    *[
        one
        for make, name in ((_xnli, "xnli"), (_xquad, "xquad"))
        for one in (
            *refused(f"{name}: seed", WHOLE, lambda w, x, make=make: make(seed=x), SEEDS),
            *refused(f"{name}: max_tokens", WHOLE, lambda w, x, make=make: make(max_tokens=x), [*COUNTS[:4], NAN, "a"]),
            *refused(f"{name}: limit", "asked for", lambda w, x, make=make: make(limit=x), ["1", NAN, 2.5, -1, 0, [1]]),
            *refused(
                f"{name}: style", "available: plain, chat", lambda w, x, make=make: make(style=x), ["Chat", 5, ["chat"]]
            ),
            *refused(
                f"{name}: instruction",
                "available: native",
                lambda w, x, make=make: make(instruction=x),
                ["de", None, 5],
            ),
            *refused(
                f"{name}: chat_template_kwargs",
                "must be a mapping",
                lambda w, x, make=make: make(chat_template_kwargs=x),
                ["a", 5, [1], {1: 2}],
            ),
            *refused(f"{name}: source", "no such folder", lambda w, x, make=make: make(source=x), [None, 5, ""]),
        )
    ],
    *refused("xquad: split_seed", WHOLE, lambda w, x: _xquad(part="test", split_seed=x), SEEDS),
    *refused("xquad: part", "no part", lambda w, x: _xquad(part=x), ["dev", 5]),
    *refused("xquad: max_new_tokens", WHOLE, lambda w, x: _xquad(max_new_tokens=x), COUNTS),
    *refused("xnli: split", "no split", lambda w, x: _xnli(split=x), ["train", None, 5]),
    Case("xnli: a long premise", lambda w: _prompts(w, _xnli(), premise=LONG), "has many tokens, more than 512"),
    Case("xnli: a long hypothesis", lambda w: _prompts(w, _xnli(), hypothesis=LONG), "has many tokens, more than 512"),
    Case("xquad: a long question", lambda w: _prompts(w, _xquad(), question=LONG), "has more than 480 tokens"),
    Case(
        "xquad: a long context",
        lambda w: _prompts(w, _xquad(), context=LONG),
        None,
        lambda prompts: prompts[0].truncated and len(prompts[0].ids) <= 480,
    ),
    *misused(
        "xnli prompt",
        "a premise is a text",
        lambda w, x: cl.tasks.xnli_prompt("de", premise=x, hypothesis="a"),
        "None, a number, a list",
    ),
    *misused(
        "xquad prompt",
        "a question is a text",
        lambda w, x: cl.tasks.xquad_prompt("de", context="a", question=x),
        "None, a number, a dict",
    ),
    *misused(
        "encode_prompt",
        "needs a text or PromptParts",
        lambda w, x: cl.tasks.encode_prompt(w.model.tokenizer, x, style="plain"),
        "None, a number, a list",
    ),
    *misused("label ids", "a tokenizer is needed", lambda w, x: cl.tasks.resolve_label_ids(x), "None, a text, a model"),
    *misused(
        "tokenize",
        "a tokenizer is needed",
        lambda w, x: cl.corpus.tokenize(x, ["a"]),
        "None, a text, a number, a model",
    ),
    *misused("F1: prediction", "is a text", lambda w, x: cl.tasks.squad_f1(x, ["a"]), "None, a number, a list, a dict"),
    *refused("F1: golds", "golds", lambda w, x: cl.tasks.squad_f1("a", x), ["a", [], None, 5, {"a": 1}, [1]]),
    *refused("F1 segmented: golds", "golds", lambda w, x: cl.tasks.f1_segmented("a", x, "de"), ["a", [], None, 5, [1]]),
    *misused(
        "overlap: task",
        "check_overlap needs a task",
        lambda w, x: cl.evaluation.check_overlap(x, {}),
        "None, a text, a frame",
    ),
    *misused(
        "overlap: interventions",
        "interventions by name",
        lambda w, x: cl.evaluation.check_overlap(w.task, x),
        "None, a list, a text",
    ),
    *misused(
        "overlapping",
        "an intervention is needed",
        lambda w, x: cl.evaluation.overlapping(w.task, x),
        "a text, statistics, a frame, a number",
    ),
    *refused("split_units: seed", WHOLE, lambda w, x: cl.corpus.split_units(list("abcd"), x), SEEDS),
    *refused("split_units", "units must be a list", lambda w, x: cl.corpus.split_units(x), ["abc", None, 5, [1, 2, 3]]),
]

STRENGTHS = [
    *refused("sweep: alphas", "different numbers", lambda w, x: _sweep(w, alphas=x), [None, 5, "1", [], [1, 1], NAN]),
    *refused("sweep: alphas", FINITE, lambda w, x: _sweep(w, alphas=x), [[NAN], ["1"], [None], [INF]]),
    Case("sweep: an alpha too large", lambda w: _sweep(w, alphas=[1e38]), "or activations overflow"),
    *refused("sweep: language", "language", lambda w, x: _sweep(w, language=x), [None, 5, ["de", "en"], "", "German"]),
    *refused(
        "sweep: prompts", "prompt", lambda w, x: _sweep(w, prompts=x), ["Tee", None, [], [None], [LONG], [[1] * 513]]
    ),
    *misused(
        "sweep: model", "load_model", lambda w, x: _sweep(w, model=x), "None, a text, a Hugging Face model, a corpus"
    ),
    *misused(
        "sweep",
        "an intervention is needed",
        lambda w, x: _sweep(w, intervention=x),
        "None, a text, categories, a class, a frame",
    ),
    *[
        Case(
            f"{name}: {value} in {part}",
            lambda w, part=part, value=value, act=act: act(_damaged(w, part, value), w),
            "so that no answer means anything",
        )
        for part in ("embed", "unembed")
        for value in (NAN, INF)
        for name, act in (
            ("generate", lambda m, w: cl.generate(m, ["Hallo"], max_new_tokens=1)),
            ("sweep", lambda m, w: _sweep(w, model=m, intervention=w.clas, prompts=["Hallo"])),
            ("effects", lambda m, w: cl.measure_effects(m, w.clas, {"en": ["Hallo"], "de": ["Hallo"]}, progress=False)),
        )
    ],
    Case("generate: a long text", lambda w: cl.generate(w.model, [LONG], max_new_tokens=1), "has more than 512 tokens"),
    Case(
        "generate: a long word",
        lambda w: cl.generate(w.model, ["a" * 5_000_000], max_new_tokens=1),
        "has more than 512 tokens",
    ),
    Case("generate: long ids", lambda w: cl.generate(w.model, [[5] * 512], max_new_tokens=1), "exceeds the context"),
    *refused(
        "generate: an id",
        "not in the model's vocabulary",
        lambda w, x: cl.generate(w.model, [x]),
        [[600], [-1], [10**12]],
    ),
    Case("steer: entered twice", _entered_twice, "was entered already"),
    Case("steer: another thread", _other_thread, None, bool),
    Case("steer: another thread generates", _other_thread_generates, None, bool),
    Case("steer: reset_hooks inside", _reset_inside, None, bool),
    *misused("Adaptive", "Adaptive needs a Clas", lambda w, x: cl.Adaptive(x), "None, statistics, categories, a class"),
    *misused(
        "Adaptive: by distance",
        "needs Representations",
        lambda w, x: cl.Adaptive.by_distance(w.clas, x),
        "None, statistics, a frame",
    ),
    *misused(
        "Amplify",
        "needs a NeuronSelection",
        lambda w, x: cl.baselines.Amplify(x),
        "None, a text, categories, statistics",
    ),
    *misused(
        "SADI",
        "run collect_statistics first",
        lambda w, x: cl.baselines.sadi_neurons(x),
        "None, a text, categories, a frame",
    ),
    *misused(
        "check_intervention: model",
        "load_model",
        lambda w, x: cl.check_intervention(x, w.clas),
        "None, a Hugging Face model",
    ),
    *refused("act_prob: share", "share", lambda w, x: cl.act_prob(w.stats, share=x), [NAN, 0, 2, "1", None]),
]

MODELS = [
    *misused(
        "load_model: no model",
        "expected a name",
        lambda w, x: cl.load_model(x),
        "None, a number, a dict, a list, a frame, statistics, a corpus, a class",
    ),
    *refused("load_model: backend", "unknown backend", lambda w, x: cl.load_model(w.folder, backend=x), ["x", 5, ""]),
    *refused(
        "load_model: device",
        "available here",
        lambda w, x: cl.load_model(w.hf, device=x),
        ["auto", "gpu", "mps", "", "meta", "cpu:x", 5, ["cpu"]],
    ),
    *refused(
        "load_model: dtype",
        "expected torch.float32",
        lambda w, x: cl.load_model(w.hf, dtype=x),
        ["auto", "int8", torch.int8, "", 16, "float8", torch.complex64, np.float32],
    ),
    *misused(
        "relayout",
        "load_model(...) gives one",
        lambda w, x: cl.relayout_weights(x),
        "None, a text, a Hugging Face model, statistics",
    ),
    *[
        case
        for name in ("describe_model", "model_fingerprint", "neuron_fingerprint")
        for case in misused(
            name,
            "load_model(...) gives one",
            lambda w, x, name=name: getattr(cl.models, name)(x),
            "None, a text, a Hugging Face model, statistics",
        )
    ],
    *refused(
        "down_projection",
        IN_RANGE,
        lambda w, x: cl.models.down_projection(w.model, x),
        [-1, 99, "1", 1.5, None, True, NAN],
    ),
    *refused(
        "output_projection",
        "available: mlp, attn",
        lambda w, x: cl.models.output_projection(w.model, x, 1),
        ["residual", None, 5],
    ),
    *misused(
        "direct_logits", "needs a tensor", lambda w, x: cl.models.direct_logits(w.model, x), "None, a number, a list"
    ),
    *misused(
        "find_checkpoint",
        "name is needed",
        lambda w, x: cl.models.find_checkpoint(x),
        "None, a number, a list, a model",
    ),
    *misused(
        "detect: texts",
        "list of texts",
        lambda w, x: cl.detect_languages(x, among=["de"]),
        "None, a text, a dict, a list",
    ),
    *misused(
        "detect: among",
        "list of language codes",
        lambda w, x: cl.detect_languages(["Tee"], among=x),
        "None, a text, a dict, a list",
    ),
    *refused("detect: sure", FINITE, lambda w, x: cl.detect_languages(["a"], among=["de"], sure=x), [NAN, 2, -1, "1"]),
    *refused("run folder", "must be a path", lambda w, x: cl.study.RunFolder(x), [None, 5, [1], "", " "]),
]

NUMBERS = [
    *[
        case
        for name in ("linear_cka", "retrieval")
        for case in refused(
            name,
            "needs",
            lambda w, x, name=name: getattr(cl.representations, name)(x, x),
            [None, "x", 5, [1.0], torch.ones(3), torch.tensor([[1.0, NAN]]), torch.tensor([[1.0, INF]])],
        )
    ],
    Case("retrieval of others", lambda w: cl.representations.retrieval(torch.ones(2, 3), torch.ones(4, 3)), "the same"),
    *misused("KL", "needs two tensors", lambda w, x: cl.representations.kl_divergence(x, x), "None, a text, a list"),
    *misused("entropy", "needs rates", lambda w, x: cl.categories.language_entropy(x), "None, categories, a frame"),
    *misused("quantile", "needs counts", lambda w, x: cl.statistics.quantile(x, 0.5), "None, categories, a frame"),
    *refused(
        "quantile",
        FINITE,
        lambda w, x: cl.statistics.quantile(torch.ones(3, 4, dtype=torch.long), x),
        [NAN, -0.1, 1.1, "0.5", None],
    ),
    *[
        case
        for name in ("levene_p", "pitman_morgan_p")
        for case in refused(
            name,
            "must be finite",
            lambda w, x, name=name: getattr(cl.significance, name)(x, x),
            [None, "abc", 5, ["a"], np.array([1.0, NAN, 2.0]), np.array([1.0, INF, 2.0])],
        )
    ],
    *misused(
        "agreement",
        "run categorize first",
        lambda w, x: cl.categories.category_agreement(x, w.cats),
        "None, statistics",
    ),
    *misused(
        "agreement", "run categorize first", lambda w, x: cl.categories.category_agreement(w.cats, x), "None, a frame"
    ),
    *misused("halves", "from_texts", lambda w, x: cl.categories.split_halves(x), "None, a text, statistics"),
    *refused("halves: seed", WHOLE, lambda w, x: cl.categories.split_halves(w.corpus, seed=x), ["0", None, 1.5]),
    *misused(
        "variance",
        "makes one",
        lambda w, x: analysis.tables.variance_table(x),
        "None, a text, a frame, statistics, a list",
    ),
    *misused(
        "comparisons", "must be a path", lambda w, x: cl.significance.load_comparisons(x), "None, a number, a list"
    ),
]

CASES = [*TASKS, *STRENGTHS, *MODELS, *NUMBERS]
