"""The page of a report: what was measured, in plain words, with plots and the numbers behind them."""

from __future__ import annotations

from featurestore.families import family_of_recipe
from featurestore.notebook.quantities import duration, size, whole_numbers
from featurestore.recipe import Recipe
from featurestore.report.measuring import StoreReport
from featurestore.report.page import plots
from featurestore.report.page.chapters import (
    advice,
    map_section,
    probe_section,
    sentences_section,
    vectors_section,
    words_section,
)
from featurestore.report.page.elements import Html, Plot, document, facts, figure, plot, section, table, text


def render_page(report: StoreReport) -> str:
    """Return a report as one page of HTML that needs nothing else: no network, no script.

    Raises
    ------
    UsageError
        If Matplotlib is not installed.
    """
    sections = [
        ("What it is", "what", _what(report)),
        ("Health", "health", _health(report)),
        ("Size and history", "size", _size(report)),
    ]
    if report.probe is not None:
        sections.append(("Which layer", "probe", probe_section(report)))
    if report.geometry is not None:
        sections.append(("Vectors", "vectors", vectors_section(report)))
        sections.append(("Words in context", "words", words_section(report)))
        sections.append(("Sentences that stand apart", "sentences", sentences_section(report)))
    if report.map is not None:
        sections.append(("Map of tokens", "map", map_section(report)))
    return document(f"featurestore report: {report.store}", sections, _summary(report))


def _whole(low: float, high: float) -> str:
    return whole_numbers(low, high, dash="–")


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _summary(report: StoreReport) -> Html:
    """Return the three answers that people open the page for."""
    contents, health = report.contents, report.health
    sound = (
        f"Nothing damaged was found ({health.checked} compared)."
        if health.is_sound
        else f"Damaged: {len(health.findings)} findings; see Health."
    )
    said = [
        f"{contents.n_sentences:,} sentences, {contents.n_tokens:,} tokens, {size(contents.n_bytes)}. {sound}"
    ]
    if report.probe is not None and report.probe.scores:
        said.append(advice(report))
    said.append(_doubling(report))
    body = "".join(f"<p>{text(one)}</p>" for one in said)
    return Html(f'<div class="said{"" if health.is_sound else " bad"}">{body}</div>')


def _doubling(report: StoreReport) -> str:
    contents = report.contents
    fast = [one for one in contents.commits if one.tokens_per_second]
    time = (
        f"and {duration(contents.n_tokens / fast[-1].tokens_per_second)} at the speed of its last commit "
        f"({fast[-1].tokens_per_second:,.0f} tokens a second on {fast[-1].device or 'an unknown device'})"
        if fast
        else "and an unknown time: no commit recorded its speed"
    )
    return f"To store as many sentences again would take {size(contents.n_bytes)} {time}."


def _what(report: StoreReport) -> Html:
    recipe, contents = Recipe(report.recipe), report.contents
    kind = family_of_recipe(recipe).name or str(recipe["kind"])
    layers = f"{report.n_layers} layers kept apart" if report.n_layers > 1 else "one layer"
    encoder = report.encoder or "an encoder that has no specification"
    note = (
        Html(
            '<p class="said bad">This encoder is UNTRAINED: random weights, fit for measuring speed only.</p>'
        )
        if recipe.get("untrained")
        else ""
    )
    return section(
        "What it is", "what", note,
        f"Vectors of {kind}, {report.dim} numbers a token, {layers}; made by {encoder}. A vector is "
        "decided by its sentence and the recipe below, whose hash is the "
        "fingerprint.",
        facts(
            [
                ("store", report.store), ("snapshot", report.snapshot), ("encoder", report.encoder or "–"),
                ("fingerprint", report.fingerprint), ("sentences", f"{contents.n_sentences:,}"),
                ("tokens", f"{contents.n_tokens:,}"), ("vectors", f"{report.n_layers} x {report.dim}"),
                ("read for this page", f"{report.n_sampled:,} sentences drawn at random (seed {report.seed})"
                 if report.n_sampled < contents.n_sentences else "all sentences"),
            ]
        ),
        table(["recipe field", "value"],
              [(name, str(value)) for name, value in sorted(report.recipe.items())],
              "Recipe"),
    )  # fmt: skip


def _health(report: StoreReport) -> Html:
    health = report.health
    verdict = (
        f"Sound: {health.checked} compared with what was committed, and nothing differs."
        if health.is_sound
        else f"Damaged. {health.checked[:1].upper()}{health.checked[1:]} compared: these differ. "
        f"`featurestore repair {report.store}` quarantines them and says what to extract again."
    )
    rows = [
        ("canaries", f"{health.n_canaries:,} sentences that an encoder must reproduce before it may add"
         if health.n_canaries else "none"),
        ("quarantined files", health.n_quarantined), ("files of dead writers", health.n_orphaned),
        ("shards no snapshot lists", health.n_unreferenced),
        ("gc would free", f"{health.gc_files:,} files, {size(health.gc_bytes)}"),
    ]  # fmt: skip
    listed = (
        table(["finding"], [(one,) for one in health.findings], "What is damaged") if health.findings else ""
    )
    return section("Health", "health", verdict, listed, facts(rows), *health.notes)


def _size(report: StoreReport) -> Html:
    contents, error = report.contents, report.codec_error
    saved = (
        f"The last extraction read {contents.n_read:,} sentences and encoded {contents.n_repeats:,} "
        "repeats only "
        f"once, which saved about {size(contents.repeat_bytes)}."
        if contents.n_repeats
        else ""
    )
    lost = (
        f"Storing as {' and '.join(sorted(contents.codecs))} cost a relative L2 of "
        f"{figure(float(error['relative_l2']))} (1 - cosine "
        f"{figure(float(error['cosine_distance']))}), measured on "
        f"{int(error['n_tokens']):,} tokens while they were written."
        if error["n_tokens"]
        else ""
    )
    per_token = contents.n_bytes / contents.n_tokens if contents.n_tokens else 0
    parts: list[object] = [
        facts(
            [
                ("on disk", f"{size(contents.n_bytes)} in {contents.n_shards:,} shards, "
                 f"{per_token:,.0f} bytes a token"),
                ("vectors", f"{size(contents.vector_bytes)} "
                            f"({_share(contents.vector_bytes, contents.n_bytes)})"),
                ("keys, tokens, checksums", size(contents.head_bytes)),
                ("codecs", ", ".join(f"{name}: {n:,} shards" for name, n in sorted(contents.codecs.items()))),
            ]
        ),
        saved, lost,
    ]  # fmt: skip
    commits = contents.commits
    if len(commits) > 1:
        rows = [
            (one.number, one.time, one.n_sentences, one.n_tokens, size(one.n_bytes),
             one.tokens_per_second or float("nan"), one.device)
            for one in commits
        ]  # fmt: skip
        last = commits[-1]
        says = (
            f"Sentences stored after each of {len(commits):,} commits, from {commits[0].n_sentences:,} to "
            f"{last.n_sentences:,}; the last was made at {last.time}."
        )
        header = ["commit", "time", "sentences", "tokens", "bytes", "tokens a second", "device"]
        numbers = table(header, rows, "Commits")
        parts.append(plot(Plot(plots.commits(commits, "commits"), says, numbers), "commits"))
    if report.statistics is not None:
        lengths = report.statistics.lengths
        says = (
            f"Tokens in a sentence: {lengths.mean:.1f} on average, half have {lengths.median:.0f} or fewer, "
            f"one in twenty more than {lengths.p95:.0f}, the longest {lengths.largest:,.0f}."
        )
        counted = [(_whole(*bounds), n) for bounds, n in zip(lengths.bins(), lengths.counts, strict=True)]
        svg = plots.histogram(lengths, "lengths", "tokens in a sentence", _whole)
        parts.append(plot(Plot(svg, says, table(["tokens", "sentences"], counted, "Lengths")), "lengths"))
    return section("Size and history", "size", *parts)
