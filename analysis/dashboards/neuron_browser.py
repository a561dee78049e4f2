"""The neuron browser: pick a layer and a category, then a neuron, and see what it answers to and what it says."""

from collections.abc import Sequence
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from ipywidgets import Dropdown, IntSlider

from clas_lens.categories.browser import promoted_tokens
from clas_lens.categories.categorize import NeuronCategories, NeuronCategory, categorize
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.given import given
from clas_lens.models.sites import LensModel
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.steering.intervention import check_neurons

from ..style.look import TEXT_SIZE, apply_look, plain, quoted
from ..style.numbers import number, signed
from .controls import control_layout
from .dashboard import Dashboard
from .markup import paragraph, table, text_bar
from .neuron_engine import Piece, language_profile, layer_neurons, token_activations

WIDTH = 900  # pixels


EXAMPLES = 4  # languages whose most exciting text is shown
CHOSEN = "#CC79A7"  # on neither end of the scale
AROUND = 40  # pieces of text on either side of the most exciting one
LOW_TO_HIGH = [[0.0, "#D55E00"], [0.5, "#F7F7F7"], [1.0, "#0072B2"]]  # told apart with any colour vision


class NeuronBrowser(Dashboard):
    """Neurons of a layer and category: activation by language, the texts that excite one most, the tokens it promotes.

    Args:
        model, stats, corpus: statistics of this model, collected on this corpus.
        cats: default those at threshold 0.
        layer, category: at first; default the last layer but two, language-specific.
        n: neurons shown of a layer and category, the most selective for a language.

    Raises:
        SteeringError: statistics of another model.
        ValueError: statistics of another corpus, categories of another shape.

    Attributes:
        neurons: the table shown (`layer_neurons`).
    """

    def __init__(
        self,
        model: LensModel,
        stats: NeuronStatistics,
        corpus: ParallelCorpus,
        *,
        cats: NeuronCategories | None = None,
        layer: int | None = None,
        category: NeuronCategory = NeuronCategory.LANGUAGE_SPECIFIC,
        n: int = 30,
    ) -> None:
        given(stats, NeuronStatistics, "NeuronBrowser needs NeuronStatistics", "run collect_statistics first")
        given(corpus, ParallelCorpus, "NeuronBrowser needs a ParallelCorpus", "give the one that was collected on")
        check_neurons(model, stats.model, n_layers=stats.n_layers, n_neurons=stats.n_neurons)
        missing = [code for code in stats.languages if code not in corpus.languages]
        if tuple(corpus.ids) != tuple(stats.example_ids) or missing:
            raise ValueError(
                f"the statistics were collected on other texts ({len(stats.example_ids)} examples in "
                f"{' '.join(stats.languages)}) than {corpus!r} has: give the corpus that collect_statistics had"
            )
        self.model, self.stats, self.corpus, self._n = model, stats, corpus, n
        self.cats = categorize(stats) if cats is None else cats
        units = (stats.site, stats.n_layers, stats.n_neurons)
        if (self.cats.site, self.cats.n_layers, self.cats.n_neurons) != units:
            raise ValueError(f"{self.cats!r} are not categories of {stats!r}")
        last = stats.n_layers - 1
        controls = {
            "layer": IntSlider(max(last - 2, 0) if layer is None else layer, 0, last, continuous_update=False),
            "category": Dropdown(options=[(one.label, one) for one in NeuronCategory], value=category),
            "neuron": Dropdown(),
        }
        for name, control in controls.items():
            control.description, control.layout = name, control_layout("24em" if name == "layer" else "16em")
        self.controls = controls
        self.neurons = self._list()
        super().__init__(controls, [self._figure()], beside=True)
        self.note.value = self._note()
        self.top.value = paragraph("A click on a row of the figure, or the choice below, shows a neuron's texts.")
        for name in ("layer", "category"):
            controls[name].observe(self._other_list, "value")
        controls["neuron"].observe(self._other_neuron, "value")
        self.figures[0].data[0].on_click(self._clicked)

    def _list(self) -> pd.DataFrame:
        """The neurons of the layer and category chosen, also put into the choice of neurons."""
        layer, category = self.controls["layer"].value, self.controls["category"].value
        found = layer_neurons(self.stats, self.cats, layer, category, n=self._n)
        rows = zip(found["neuron"].tolist(), found["language"], found["selectivity"], strict=True)
        labels = [(f"{neuron} ({code} {signed(score)})", neuron) for neuron, code, score in rows]
        self.controls["neuron"].options = labels
        self.controls["neuron"].index = 0 if labels else None
        return found

    def _figure(self) -> go.Figure:
        layer, category = self.controls["layer"].value, self.controls["category"].value
        neurons = self.neurons["neuron"].tolist()
        profile = language_profile(self.stats, layer, neurons)
        return profile_figure(profile, layer, category.label, chosen=self.controls["neuron"].value)

    def _note(self) -> str:
        layer, neuron = self.controls["layer"].value, self.controls["neuron"].value
        if neuron is None:
            return paragraph(f"Layer {layer} has no {self.controls['category'].label} neurons.")
        profile = language_profile(self.stats, layer, [neuron]).sort_values("max", ascending=False)
        promoted = promoted_tokens(self.model, layer, neuron, site=self.stats.site)
        tokens = ", ".join(quoted(token) for token in promoted["token"])
        parts = [
            paragraph(f"Neuron {layer}.{neuron}, {self.controls['category'].label}. It promotes {tokens}"),
            profile_table(profile),
        ]
        limit = self.stats.settings.get("max_tokens")
        for language, row in zip(profile["language"].head(EXAMPLES), profile["example"], strict=False):
            pieces = token_activations(
                self.model, self.corpus[language][row], layer, neuron, max_tokens=limit, site=self.stats.site
            )
            parts.append(highlighted(pieces, f"{language}, {self.corpus.ids[row]}"))
        return "".join(parts)

    def _other_list(self, change: Any) -> None:
        neuron = self.controls["neuron"]
        neuron.unobserve(self._other_neuron, "value")
        self.neurons = self._list()
        neuron.observe(self._other_neuron, "value")
        self.show([self._figure()], self._note())

    def _other_neuron(self, change: Any) -> None:
        self.show([self._figure()], self._note())

    def _clicked(self, trace: Any, points: Any, state: Any) -> None:
        """A click on a row of the figure chooses its neuron."""
        if points.point_inds:
            self.controls["neuron"].value = int(self.neurons["neuron"].iloc[points.point_inds[0][0]])


def profile_figure(
    profile: pd.DataFrame, layer: int, category: str, *, chosen: int | None = None, dark: bool = False
) -> go.Figure:
    """Neurons down, languages across: the mean activation in units of the neuron's root mean square.

    Args:
        profile: `language_profile(...)`, in the order to show.
        chosen: a neuron whose row is framed.
    """
    neurons, languages = (profile[name].unique().tolist() for name in ("neuron", "language"))
    tables = {
        name: profile.pivot(index="neuron", columns="language", values=name).reindex(index=neurons, columns=languages)
        for name in ("relative", "mean", "firing_rate", "max")
    }
    hover = [
        [f"mean {mean:.3g}, P(h > 0) {100 * rate:.0f}%, max {most:.3g}" for mean, rate, most in zip(*rows, strict=True)]
        for rows in zip(*(tables[name].to_numpy() for name in ("mean", "firing_rate", "max")), strict=True)
    ]
    figure = go.Figure()
    figure.add_heatmap(
        z=tables["relative"].to_numpy(),
        x=[plain(code) for code in languages],
        y=[f"{layer}.{neuron}" for neuron in neurons],
        customdata=hover,
        colorscale=LOW_TO_HIGH,
        zmid=0,
        xgap=1,
        ygap=1,
        colorbar={"title": {"text": "mean / RMS", "font": {"size": TEXT_SIZE}}, "thickness": 12, "outlinewidth": 0},
        hovertemplate="neuron %{y}, <b>%{x}</b>: %{z:.2f}<br>%{customdata}<extra></extra>",
    )
    apply_look(
        figure,
        title=f"Layer {layer}, {category} neurons: activation by language",
        subtitle=f"{len(neurons)} neurons, the most selective for a language first; mean activation in units of the "
        "neuron's root mean square",
        dark=dark,
        width=WIDTH,
        height=150 + 18 * max(len(neurons), 6),
        legend=False,
    )
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_yaxes(type="category", showgrid=False, autorange="reversed")
    if chosen in neurons:
        row = neurons.index(chosen)
        ends = {"x0": 0, "x1": 1, "xref": "paper", "y0": row - 0.5, "y1": row + 0.5}
        figure.add_shape(type="rect", **ends, line={"color": CHOSEN, "width": 3})
    return figure


def profile_table(profile: pd.DataFrame) -> str:
    """One neuron's numbers in each language."""
    highest = float(profile["mean"].max())
    columns = {
        "language": profile["language"].tolist(),
        "mean": [
            text_bar(mean / highest if highest > 0 else 0.0, signed(mean, 3)) for mean in profile["mean"].tolist()
        ],
        "P(h > 0)": [f"{number(100 * rate, 0)}%" for rate in profile["firing_rate"].tolist()],
        "max": [signed(most, 3) for most in profile["max"].tolist()],
    }
    return table(columns)


def highlighted(pieces: Sequence[Piece], source: str) -> str:
    """A text with each piece shaded by its activation, above 0, relative to the largest, which is underlined.

    Long texts are cut to the pieces around the largest.
    """
    top = max(range(len(pieces)), key=lambda place: pieces[place].activation)
    largest = pieces[top].activation
    first, last = max(top - AROUND, 0), min(top + AROUND + 1, len(pieces))
    marked = []
    for place in range(first, last):
        piece = pieces[place]
        share = max(piece.activation, 0.0) / largest if largest > 0 else 0.0
        tag = "u" if place == top else "span"  # underlined also where styles are taken away
        shade = f"background:rgba(0,114,178,{0.6 * share:.2f})"
        marked.append(f'<{tag} style="{shade}" title="{piece.activation:.3f}">{escape(piece.text)}</{tag}>')
    before, after = ("\N{HORIZONTAL ELLIPSIS}" if cut else "" for cut in (first > 0, last < len(pieces)))
    text = f'<span dir="auto">{before}{"".join(marked)}{after}</span>'
    return f'<p style="margin:.4em 0"><strong>{escape(source)}</strong>, max {escape(signed(largest, 3))}: {text}</p>'
