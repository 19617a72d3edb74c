"""The plots of the README, drawn from the figures that bench.py keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.figures import Table
from tests.bench.report import Curve

# Okabe and Ito's colours, which the colour-blind tell apart; ours is always the same.
OURS, OTHER, LIMIT = "#0072B2", "#999999", "#000000"
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
MARKERS = ("o", "s", "^", "D")


def draw(parts: dict[str, dict[str, Any]], folder: Path) -> list[Path]:
    """Draw every plot whose figures are there.

    Parameters
    ----------
    parts : dict
        Entries of bench.py's results by part.
    folder : Path
        Made if it is not there.

    Returns
    -------
    list of Path
        The files; none where matplotlib is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError:
        return []
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
            "grid.color": "#dddddd", "grid.linewidth": 0.6, "axes.axisbelow": True, "legend.frameon": False,
            "figure.facecolor": "white", "savefig.dpi": 150, "lines.linewidth": 1.6, "lines.markersize": 4.5,
        }
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for part, name, function in PLOTS:
        if part not in parts:
            continue
        figure = function(plt, parts, parts[part]["result"])
        path = folder / f"{name}.png"
        figure.savefig(path, bbox_inches="tight", metadata={"Software": None})
        plt.close(figure)
        made.append(path)
    return made


def encoding(plt: Any, parts: dict[str, Any], result: dict[str, Any]) -> Any:
    """Throughput against the token budget and against the sentence length."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.1), sharey=True, layout="constrained")
    for axis, name in ((left, "budget"), (right, "length")):
        curves = result["curves"][name]
        lines(axis, curves)
        axis.set_xscale("log", base=2)
        axis.set_xticks(curves[0]["x"], [plain(x) for x in curves[0]["x"]])
        axis.minorticks_off()
    left.set_ylim(
        0, 1.08 * max(y for curves in result["curves"].values() for each in curves for y in each["y"])
    )
    left.yaxis.set_major_formatter(plain)
    left.set_xlabel("token budget of a batch")
    right.set_xlabel("tokens in every sentence (the default budget)")
    left.set_ylabel("tokens/s")
    left.legend(loc="upper left", title=result["settings"]["encoder"].removeprefix("elmo:untrained-"))
    return figure


def serving(plt: Any, parts: dict[str, Any], result: dict[str, Any]) -> Any:
    """Tokens per second by layout, on a logarithmic scale."""
    table = Table.from_dict(result["tables"][0])
    column = table.ratio_column
    rows = [row for row in table.rows if isinstance(row.values.get(column), (int, float))]
    rows.sort(key=lambda row: row.values[column])
    figure, axis = plt.subplots(figsize=(8, 0.34 * len(rows) + 0.7), layout="constrained")
    colours = {"ours": OURS, "ceiling": LIMIT}
    values = [1000 * row.values[column] for row in rows]
    names = [f"ceiling: {row.name}" if row.kind == "ceiling" else row.name for row in rows]
    bars = axis.barh(names, values, color=[colours.get(row.kind, OTHER) for row in rows], height=0.68)
    axis.bar_label(
        bars,
        [f"{value / 1e6:.2g} M" if value >= 1e6 else f"{value / 1e3:,.0f} k" for value in values],
        padding=3,
    )
    axis.set_xscale("log")
    axis.set_xlim(min(values) / 2, max(values) * 2)
    axis.xaxis.set_major_formatter(short)
    axis.set_xlabel("tokens/s, DataLoader, batches by length, float32, one thread (logarithmic)")
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)
    return figure


def extraction(plt: Any, parts: dict[str, Any], result: dict[str, Any]) -> Any:
    """Seconds and megabytes of an extraction against the tokens of the corpus."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.1), layout="constrained")
    lines(left, result["curves"]["seconds"])
    # Bytes are the same for all encoders of one length: the longest line is all of them.
    longest = max(result["curves"]["megabytes"], key=lambda curve: curve["x"][-1])
    right.plot(longest["x"], longest["y"], color="#000000", marker="o")
    for axis in (left, right):
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.xaxis.set_major_formatter(short)
        axis.yaxis.set_major_formatter(plain)
        axis.set_xlabel("tokens in the corpus")
    left.set_ylabel("seconds")
    left.set_ylim(bottom=0.1)
    right.set_ylabel("MB on disk")
    right.text(0.04, 0.93, "1024-d float16, any encoder", transform=right.transAxes)
    left.legend(loc="lower right")
    return figure


def lines(axis: Any, curves: list[dict[str, Any]]) -> None:
    """Plot curves in colours and markers that can be told apart."""
    for curve, colour, marker in zip((Curve(**each) for each in curves), LINES, MARKERS, strict=False):
        axis.plot(curve.x, curve.y, color=colour, marker=marker, label=curve.name)


def plain(value: float, _: int = 0) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def short(value: float, _: int = 0) -> str:
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value / 1e3:g} k" if value >= 1e3 else f"{value:g}"


PLOTS: tuple[tuple[str, str, Callable[[Any, dict[str, Any], dict[str, Any]], Any]], ...] = (
    ("encoding-curves", "encoding", encoding),
    ("serving", "serving", serving),
    ("extraction", "extraction", extraction),
)
