"""Figures of the latent language, from small tables by hand."""

import pandas as pd
import pytest

from analysis.figures.lens import latent_language, top_token_map


def lens_table(**changes):
    return pd.DataFrame(
        {
            "language": "de",
            "source": "fr",
            "prompt": "translation",
            "when": when,
            "layer": layer,
            "word_language": code,
            "probability": (layer + 1) / 10 if code == "de" else 0.05,
            "low": 0.01,
            "high": 0.5,
            "control": 0.02,
            "n": 6,
            **changes,
        }
        for when in ("before", "after")
        for code in ("fr", "de", "en")
        for layer in range(3)
    )


def lines(figure):
    return [trace for trace in figure.data if trace.mode == "lines+markers" and trace.x[0] is not None]


def test_a_line_a_language_and_a_panel_before_and_after():
    figure = latent_language(lens_table())
    assert [note.text for note in figure.layout.annotations] == [
        "French to German, not steered",
        "French to German, steered",
    ]
    assert len(lines(figure)) == 2 * 3
    thick = [trace for trace in lines(figure) if trace.line.width == 3]
    assert [list(trace.y) for trace in thick] == [[0.1, 0.2, 0.3]] * 2  # German, the input's language
    assert [trace.name for trace in figure.data if trace.showlegend is None] == ["French", "German", "English"]
    assert "6 words a language" in figure.layout.title.subtitle.text
    one = lens_table().query("when == 'before'")
    assert [note.text for note in latent_language(one).layout.annotations] == ["French to German"]


def test_different_questions_are_not_drawn_as_one():
    both = pd.concat([lens_table(), lens_table(prompt="cloze")])
    with pytest.raises(ValueError, match="draws one prompt.*de translation from fr; de cloze from fr"):
        latent_language(both)
    with pytest.raises(ValueError, match="latent_language"):
        latent_language(lens_table().drop(columns="control"))


def test_the_first_words_stand_in_their_cells():
    rows = [
        (layer, position, token, rank, word, 0.6 / rank)
        for layer in range(2)
        for position, token in ((-2, "eau"), (-1, ":"))
        for rank, word in ((1, f"w{layer}"), (2, "<b>"))
    ]
    table = pd.DataFrame(rows, columns=["layer", "position", "token", "rank", "top", "probability"])
    (heat,) = top_token_map(table).data
    assert [list(line) for line in heat.text] == [["w0", "w0"], ["w1", "w1"]]
    assert [list(line) for line in heat.z] == [[0.6, 0.6]] * 2
    assert "<b>" not in heat.customdata[0][0]  # names are text, never markup
    assert top_token_map(table.assign(top=" ")).data[0].text[0][0] == "\N{OPEN BOX}"
    with pytest.raises(ValueError, match="top_token_map"):
        top_token_map(table.drop(columns="rank"))
