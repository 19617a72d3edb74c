"""The plots of a report, as SVG that follows the page's colours; each readable in black and white.

Matplotlib draws them: it is what people of this field have installed, its SVG needs no script, and text in it
stays text. It is an extra, ``featurestore[report]``.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from featurestore.errors import UsageError
from featurestore.report.contents import CommitFacts
from featurestore.report.geometry import Geometry
from featurestore.report.probe import Probe
from featurestore.report.projecting import TokenMap
from featurestore.report.words import Words
from featurestore.store.maintenance.statistics import Distribution

# Okabe and Ito's colours, which colour-blind people tell apart; each goes with a marker or a line of its own.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8A8A00", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":")
_INK = "#0a0b0c"
"""Stands for the colour of the page's text, and is replaced by it in the SVG."""

_SIZE = (7.2, 3.2)

_FAR_BELOW = 20
"""Per cent. A majority further below all scores is not drawn, or their differences would look small."""


@contextmanager
def _figure(size: tuple[float, float] = _SIZE) -> Iterator[tuple[Any, Any]]:
    """Yield a figure and its axes, drawn without a screen and whatever the user's settings."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "the page is drawn by Matplotlib, which is not installed: pip install 'featurestore[report]' "
            "(--json needs none)"
        ) from error
    settings: Any = {
        **dict.fromkeys(
            ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK
        ),
        "svg.fonttype": "none", "svg.hashsalt": "featurestore", "text.parse_math": False,
        "axes.facecolor": "none", "figure.facecolor": "none", "legend.frameon": False,
        "axes.spines.top": False, "axes.spines.right": False, "font.family": "sans-serif", "font.size": 10,
    }  # fmt: skip
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        figure = Figure(figsize=size, layout="constrained")
        yield figure, figure.subplots()


def _svg(figure: Any, name: str) -> str:
    """Return a figure as an SVG element whose names are its own on the page."""
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = written.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'(xlink:href|href)="#', rf'\1="#{name}-', text)
    text = text.replace(_INK, "currentColor")
    # The page scales it, and says what it shows.
    return re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>',
        rf'<svg width="{96 * figure.get_figwidth():.0f}" viewBox="\1" aria-hidden="true" '
        r'xmlns="http://www.w3.org/2000/svg" '
        r'xmlns:xlink="http://www.w3.org/1999/xlink">',
        text,
        count=1,
    )


def histogram(distribution: Distribution, name: str, what: str, style: Callable[[float, float], str]) -> str:
    """Draw a distribution as bars, one for each of its bins, whatever their width."""
    with _figure() as (figure, axes):
        labels = [style(low, high) for low, high in distribution.bins()]
        axes.bar(range(len(labels)), distribution.counts, color=COLOURS[0], edgecolor=_INK, linewidth=0.4)
        axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right")
        axes.set_xlabel(what)
        axes.set_ylabel("count")
        return _svg(figure, name)


def commits(facts: Sequence[CommitFacts], name: str) -> str:
    """Draw sentences stored after each commit, and the speed of those that encoded something."""
    with _figure() as (figure, axes):
        numbers = [one.number for one in facts]
        axes.step(numbers, [one.n_sentences for one in facts], where="post", color=COLOURS[0], marker="o",
                  markersize=4)  # fmt: skip
        axes.set_xlabel("commit")
        axes.set_ylabel("sentences stored")
        axes.set_ylim(bottom=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
        fast = [(one.number, one.tokens_per_second) for one in facts if one.tokens_per_second]
        if fast:
            beside = axes.twinx()
            beside.plot(*zip(*fast, strict=True), color=COLOURS[5], linestyle="--", marker="s", markersize=4)
            beside.set_ylabel("tokens a second (dashed)")
            beside.set_ylim(bottom=0)
        return _svg(figure, name)


def norms(geometry: Geometry, name: str) -> str:
    """Draw the distribution of norms of each layer as a line."""
    with _figure() as (figure, axes):
        for number, layer in enumerate(geometry.layers):
            counts = layer.norms.counts
            total = sum(counts) or 1
            middles = [(low + high) / 2 for low, high in layer.norms.bins()]
            axes.plot(middles, [n / total for n in counts], color=COLOURS[number % 8],
                      linestyle=LINES[number % 4], marker=MARKERS[number % 8], markersize=4,
                      label=f"layer {number}" if len(geometry.layers) > 1 else None)  # fmt: skip
        axes.set_xlabel("Euclidean norm of a token's vector")
        axes.set_ylabel("share of tokens")
        axes.set_ylim(bottom=0)
        if len(geometry.layers) > 1:
            axes.legend()
        return _svg(figure, name)


def alignment(geometry: Geometry, name: str) -> str:
    """Draw how alike the layers are, the number in each square."""
    with _figure((4.2, 3.4)) as (figure, axes):
        rows = geometry.alignment
        # Not imshow, which puts a picture into the SVG: the page lets no picture load.
        axes.pcolormesh(rows, cmap="Greys", vmin=0, vmax=1, edgecolors=_INK, linewidth=0.4)
        axes.invert_yaxis()
        axes.set_aspect("equal")
        for i, row in enumerate(rows):
            for j, value in enumerate(row):
                axes.text(j + 0.5, i + 0.5, f"{value:.2f}", ha="center", va="center",
                          color="white" if value > 0.55 else "black")  # fmt: skip
        middles = [i + 0.5 for i in range(len(rows))]
        axes.set_xticks(middles, range(len(rows)))
        axes.set_yticks(middles, range(len(rows)))
        axes.set_xlabel("layer")
        axes.set_ylabel("layer")
        return _svg(figure, name)


def contexts(words: Words, geometry: Geometry, name: str) -> str:
    """Draw self-similarity of words beside the cosine of any two tokens, layer by layer."""
    with _figure((5.2, 3.0)) as (figure, axes):
        layers = range(len(words.self_similarity))
        any_two = [layer.anisotropy for layer in geometry.layers]
        axes.bar([i - 0.2 for i in layers], words.self_similarity, 0.4, color=COLOURS[0], edgecolor=_INK,
                 label="the same word twice")  # fmt: skip
        axes.bar([i + 0.2 for i in layers], any_two, 0.4, color=COLOURS[1], edgecolor=_INK, hatch="//",
                 label="any two tokens")  # fmt: skip
        axes.set_xticks(layers, [f"layer {i}" if len(layers) > 1 else "stored vectors" for i in layers])
        axes.set_ylabel("mean cosine")
        axes.set_ylim(min(0, *any_two), 1)
        axes.legend()
        return _svg(figure, name)


def scores(found: Probe, name: str) -> str:
    """Draw what a linear map of each layer gets right, with margins, beside always guessing the same."""
    with _figure((5.6, 3.0)) as (figure, axes):
        places = range(len(found.scores))
        axes.errorbar(places, [100 * one.accuracy for one in found.scores],
                      yerr=[100 * one.margin for one in found.scores], fmt="o", color=COLOURS[0],
                      capsize=5)  # fmt: skip
        lowest = 100 * min(one.accuracy - one.margin for one in found.scores)
        if 100 * found.majority > lowest - _FAR_BELOW:
            lowest = min(lowest, 100 * found.majority)
            axes.axhline(100 * found.majority, color=COLOURS[5], linestyle="--")
            axes.annotate("always the most frequent label", (0, 100 * found.majority), xytext=(0, 4),
                          textcoords="offset points")  # fmt: skip
        axes.set_xticks(places, [one.name for one in found.scores])
        axes.set_xlim(-0.5, len(found.scores) - 0.5)
        axes.set_ylabel(f"{found.label}: % right")
        axes.set_ylim(max(0, lowest - 3), 100)
        return _svg(figure, name)


def token_scatter(found: TokenMap, name: str) -> str:
    """Draw the map: the seven most frequent labels by colour and marker, the others as grey stars."""
    with _figure((7.2, 5.4)) as (figure, axes):
        groups = _groups(found)
        for number, (label, places) in enumerate(groups):
            x, y = zip(*(found.points[i] for i in places), strict=True)
            axes.scatter(x, y, s=14, marker=MARKERS[number], color=COLOURS[number], alpha=0.75, linewidths=0,
                         label=f"{label} ({len(places):,})" if found.labels else None)  # fmt: skip
        axes.set_xticks([])
        axes.set_yticks([])
        if found.labels:
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return _svg(figure, name)


def _groups(found: TokenMap) -> list[tuple[str, list[int]]]:
    """Return the points of each frequent label, and of all others together, with what to call them."""
    if not found.labels:
        return [("", list(range(len(found.points))))]
    frequent = [label for label, _ in Counter(found.labels).most_common(7)]
    groups = [(label, [i for i, one in enumerate(found.labels) if one == label]) for label in frequent]
    others = [i for i, one in enumerate(found.labels) if one not in frequent]
    return [(_short(label), places) for label, places in groups] + ([("others", others)] if others else [])


def _short(label: str) -> str:
    shown = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in label
    )
    return shown if len(shown) <= 24 else shown[:23] + "…"
