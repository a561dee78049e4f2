"""The steering bench: what the model says, controls to steer it with, the next token and what each layer makes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast, get_args

from ipywidgets import Dropdown, Text, Widget

from clas_lens.corpus.bundled import bundled_languages
from clas_lens.models.sites import LensModel, Site
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.steering.intervention import Intervention
from clas_lens.steering.rules import Rule
from clas_lens.vocabulary import SiteKind

from .bench_code import bench_code
from .bench_engine import SteeringBench
from .bench_figures import LENS, bench_figures, bench_note, bench_said, lens_table
from .controls import LayerChoice, NumberSlider, control_layout
from .dashboard import Dashboard
from .markup import code_block

LIMITS = {"alpha": (-8.0, 8.0), "beta": (0.0, 1.0), "gamma": (0.0, 1.0)}
CODE = "copy as code"
ASKED = ("prompt", "language")
CHOICES = ("intervention", "site")  # of what is steered with; another one has other controls


class BenchView(Dashboard):
    """A steering bench to move sliders on: `BenchView(model, clas, "Die Hauptstadt von", "de")` as a cell's last line.

    The prompt is run once; letting go of a slider runs the layers from the first steered one, and a short continuation.
    Until the layers are moved, they are the intervention's own, which need not be consecutive. `close()` takes the bench's
    hooks off the model; until then they do nothing but for the bench.

    Args:
        intervention: CLAS, a `rule` of your own, or any other; each has the controls that it can be put at, a rule also the
            sites that the model has. A mapping of names to several lets you choose among them.
        model, prompt, language, options: see `SteeringBench`.

    Raises:
        ValueError: no intervention at all; or as for `SteeringBench`.

    Attributes:
        bench: the engine of what is chosen.
        layers: that are steered.
        result: what is shown.
    """

    def __init__(
        self,
        model: LensModel,
        intervention: Intervention | Mapping[str, Intervention],
        prompt: str,
        language: str,
        *,
        stats: NeuronStatistics | None = None,
        **options: Any,
    ) -> None:
        self._benches: dict[tuple[str, SiteKind | None], SteeringBench] = {}
        self._several = isinstance(intervention, Mapping)
        self._given: dict[str, Intervention] = (
            dict(intervention) if isinstance(intervention, Mapping) else {"": intervention}
        )
        if not self._given:
            raise ValueError("the bench needs an intervention, got an empty mapping")
        self._make: dict[str, Any] = {"model": model, "stats": stats, **options}
        first = next(iter(self._given))
        self.bench = self._bench((first, None), prompt, language)
        self.layers = self._own_layers()
        self.result = self.bench.run()
        asked = {
            "prompt": Text(prompt, description="prompt", continuous_update=False, layout=control_layout("40em")),
            "language": Dropdown(description="language", layout=control_layout()),
        }
        super().__init__(asked, bench_figures(self.result, self.layers), more=(CODE, LENS))
        for control in asked.values():
            control.observe(self._asked, "value")
        self._choose(first)
        self._show_result({})

    @property
    def code(self) -> str:
        """The setting shown, as code that gives its continuation."""
        return self._code

    def close(self) -> None:
        """Take the widgets and the bench's hooks away."""
        for bench in self._benches.values():
            bench.close()
        super().close()

    # --- what is steered with ---

    def _bench(self, key: tuple[str, SiteKind | None], prompt: str | Sequence[int], language: str) -> SteeringBench:
        """The engine of an intervention at a site (None: its own), asked this prompt."""
        if key not in self._benches:
            name, site = key
            chosen = self._given[name] if site is None else replace(cast(Any, self._given[name]), site=site)
            options = {**self._make, "intervention": chosen, "prompt": prompt, "language": language}
            self._benches[key] = SteeringBench(**options)
        bench = self._benches[key]
        if (bench.prompt, bench.language) != (prompt, language):
            bench.ask(prompt, language)
        return bench

    def _own_layers(self) -> tuple[int, ...]:
        sites = self.bench.given.edits(self.bench.model, [self.bench.language])
        return tuple(dict.fromkeys(site.layer for site in sorted(sites)))

    def _choose(self, name: str) -> None:
        """The controls of the bench that was chosen, with the prompt's before them."""
        given = self.bench.given
        asked = {key: self.controls[key] for key in ASKED}
        choices: dict[str, Widget] = {}
        if self._several:
            choices["intervention"] = _dropdown("intervention", list(self._given), name)
        if isinstance(given, Rule):
            choices["site"] = _dropdown("site", _sites(self.bench.model, self._given[name]), given.site)
        controls = asked | choices | _setting_controls(self.bench, self.layers)
        language = self.controls["language"]
        language.unobserve(self._asked, "value")
        codes = _languages(given, self.bench.language)
        language.options = [(_language_name(code, given.anchor), code) for code in codes]
        language.value = self.bench.language
        language.observe(self._asked, "value")
        self.exchange_controls(controls)
        for key in controls.keys() - set(ASKED):
            controls[key].observe(self._chosen if key in CHOICES else self._changed, "value")
        if "layers" in controls:
            controls["layers"].observe(self._mistyped, "wrong")

    def _chosen(self, change: Any) -> None:
        """Another intervention, at its own site, or the same at another site."""
        name = self.controls["intervention"].value if self._several else next(iter(self._given))
        site = change["new"] if change["owner"] is self.controls.get("site") else None
        try:
            self.bench = self._bench((name, site), self.bench.prompt, self.bench.language)
            self.layers = self._own_layers()
            self._choose(name)
            self.result = self.bench.run()
        except ValueError as error:
            self.refuse(error)
            return
        self._show_result({"site": site} if site is not None else {})

    # --- settings ---

    def _asked(self, change: Any) -> None:
        try:
            self.bench.ask(self.controls["prompt"].value, self.controls["language"].value)
        except ValueError as error:
            self.refuse(error)
            return
        self._changed(change)

    def _mistyped(self, change: Any) -> None:
        if change["new"]:
            self.refuse(ValueError(change["new"]))

    def _changed(self, change: Any) -> None:
        settings = {name: self.controls[name].value for name in (*LIMITS, "masks", "layers") if name in self.controls}
        self.layers = settings.get("layers", self.layers)
        try:
            self.result = self.bench.run(**settings)
        except ValueError as error:
            self.refuse(error)
            return
        site = {"site": self.controls["site"].value} if "site" in self.controls else {}
        self._show_result({**site, **settings})

    def _show_result(self, settings: Mapping[str, Any]) -> None:
        bench = self.bench
        numbers = {name: value for name, value in settings.items() if name != "masks"}
        chosen = f"interventions[{self.controls['intervention'].value!r}]" if self._several else ""
        self._code = bench_code(
            bench.given,
            chosen,
            numbers,
            prompt=bench.prompt,
            language=bench.language,
            masks=settings.get("masks", "clas"),
            seed=bench.seed,
            max_new_tokens=bench.max_new_tokens,
        )
        self.show(bench_figures(self.result, self.layers), bench_note(self.result))
        self.top.value = bench_said(self.result, bench.prompt, bench.language, bench.given.anchor, self.layers)
        self.more[CODE].value = code_block(self._code)
        self.more[LENS].value = lens_table(self.result)


def _setting_controls(bench: SteeringBench, layers: Sequence[int]) -> dict[str, Widget]:
    """A control for everything that the bench's intervention can be put at."""
    controls: dict[str, Widget] = {}
    if len(bench.mask_kinds) > 1:
        controls["masks"] = _dropdown("masks", list(bench.mask_kinds), bench.mask_kinds[0])
    if "layers" in bench.settable:
        controls["layers"] = LayerChoice(layers, bench.model.cfg.n_layers)
    numbers = {name: limits for name, limits in LIMITS.items() if name in bench.settable}
    return controls | {name: NumberSlider(name, getattr(bench.given, name), *ends) for name, ends in numbers.items()}


def _dropdown(name: str, options: Sequence[str], value: str) -> Dropdown:
    return Dropdown(options=list(options), value=value, description=name, layout=control_layout())


def _sites(model: LensModel, rule: Any) -> list[SiteKind]:
    """Where the model can be changed in all of the rule's layers."""
    return [kind for kind in get_args(SiteKind) if all(_has(model, kind, at) for at in rule.layers)]


def _has(model: LensModel, kind: SiteKind, layer: int) -> bool:
    try:
        Site(kind, layer).hook_name(model)
    except ValueError:
        return False
    return True


def _languages(intervention: Any, language: str) -> list[str]:
    """Those that the intervention was made for; the bundled corpus's where it takes any."""
    measured = getattr(getattr(intervention, "categories", intervention), "languages", None)
    known = bundled_languages() if measured is None else measured
    return list(dict.fromkeys([*known, intervention.anchor, language]))


def _language_name(code: str, anchor: str) -> str:
    return f"{code} (anchor: not steered)" if code == anchor else code
