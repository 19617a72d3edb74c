"""The sections of a report's page that say what the vectors are like and what they know."""

from __future__ import annotations

from featurestore.report.measuring import StoreReport
from featurestore.report.page import plots
from featurestore.report.page.elements import Html, Plot, figure, plot, section, table, text, tokens, unfolded


def advice(report: StoreReport) -> str:
    """Return which layer to take for the label, as far as the margins allow to say."""
    found = report.probe
    if found is None or not found.scores:
        return ""
    best = max(found.scores, key=lambda one: one.accuracy)
    as_good = [one.name for one in found.scores if one is not best
               and one.accuracy + one.margin >= best.accuracy - best.margin]  # fmt: skip
    also = f"; within the margin as good: {', '.join(as_good)}" if as_good else ""
    where = (
        f"For {found.label}, {best.name} reads best"
        if len(found.scores) > 1
        else f"For {found.label}, {best.name}"
    )
    return (
        f"{where}: a linear map of it gets {best.accuracy:.1%} (± {best.margin:.1%}) of {found.n_tested:,} "
        f"{found.of}s right that it did not see{also}. Always guessing the same gets {found.majority:.1%}."
    )


def probe_section(report: StoreReport) -> Html:
    """Return the section on which layer a label is read off best."""
    found = report.probe
    if found is None:
        return Html("")
    rows = [(one.name, 100 * one.accuracy, 100 * one.margin) for one in found.scores]
    header = ["vectors", "% right", "± (two standard errors)"]
    numbers = table(header, rows, f"Linear probe of {found.label}")
    missing = (
        f"{found.n_missing:,} sentences of the corpus are not stored and were left out."
        if found.n_missing
        else ""
    )
    return section(
        "Which layer", "probe", advice(report),
        plot(Plot(plots.scores(found, "scores"),
                  f"What a linear map of each layer gets right, of {found.n_labels:,} labels, with margins.",
                  numbers),
             "scores"),
        f"Ridge regression onto the labels, fitted on {found.n_trained:,} {found.of}s and scored on "
        f"{found.n_tested:,} of other sentences. It says what can be read off a vector, not what a "
        "trained model "
        "reaches: `featurestore train` says that.", missing,
    )  # fmt: skip


def vectors_section(report: StoreReport) -> Html:
    """Return the section on norms, dimensions, directions, layers compared."""
    geometry = report.geometry
    if geometry is None:
        return Html("")
    rows = [
        (number, layer.norms.mean, layer.norms.std, layer.anisotropy, layer.effective_dimension,
         100 * layer.share_of_five, len(layer.dead), len(layer.saturated))
        for number, layer in enumerate(geometry.layers)
    ]  # fmt: skip
    header = ["layer", "mean norm", "std", "mean cosine of two tokens", "effective dimension",
              "% of variance in five dimensions", "dead", "saturated"]  # fmt: skip
    dimensions = [
        (number, one.dimension, 100 * one.share, one.mean)
        for number, layer in enumerate(geometry.layers)
        for one in layer.dominant
    ]
    last = geometry.layers[-1]
    name = f"layer {len(geometry.layers) - 1}" if len(geometry.layers) > 1 else "the stored vectors"
    even = "spread widely" if last.anisotropy < 0.2 else "crowded into a cone"
    parts: list[object] = [
        f"Directions of {name} are {even}: two tokens have a cosine of {figure(last.anisotropy)} on "
        "average. They "
        f"vary as {figure(last.effective_dimension)} equally strong directions would, of "
        f"{report.dim}. The five "
        f"dimensions that vary most have {last.share_of_five:.1%} of the variance"
        + (": they decide much of every distance." if last.share_of_five > 0.2 else "."),
        table(header, rows, f"Over {geometry.n_tokens:,} tokens"),
        plot(
            Plot(
                plots.norms(geometry, "norms"),
                f"Norms of the vectors; {name}: {figure(last.norms.mean)} on average, from "
                f"{figure(last.norms.smallest)} to {figure(last.norms.largest)}.",
                table(
                    ["layer", "from", "to", "tokens"],
                    [(number, low, high, n) for number, layer in enumerate(geometry.layers)
                     for (low, high), n in zip(layer.norms.bins(), layer.norms.counts, strict=True)], "Norms",
                ),
            ),
            "norms",
        ),
        unfolded(
            "Dimensions that vary most",
            table(
                ["layer", "dimension", "% of the layer's variance", "mean"],
                dimensions,
                "Dimensions that vary most",
            ),
        ),
    ]  # fmt: skip
    for kind, what in (
        ("dead", "hardly change (dead)"),
        ("saturated", "often stand at their extreme (saturated)"),
    ):
        for number, layer in enumerate(geometry.layers):
            listed = getattr(layer, kind)
            if listed:
                some = ", ".join(map(str, listed[:20])) + (", …" if len(listed) > 20 else "")
                parts.append(f"Layer {number}: {len(listed):,} dimensions {what}: {some}.")
    if len(geometry.layers) > 1:
        layers = [f"layer {i}" for i in range(len(geometry.layers))]
        numbers = table(
            ["", *layers], [(layers[i], *row) for i, row in enumerate(geometry.alignment)], "Linear CKA"
        )
        says = (
            "How alike the layers are (linear CKA): 1 where one is a rotation of the other, 0 where nothing "
            "goes together."
        )
        parts.append(plot(Plot(plots.alignment(geometry, "alignment"), says, numbers), "alignment"))
    return section("Vectors", "vectors", *parts)


def words_section(report: StoreReport) -> Html:
    """Return the section on how much a word's vectors depend on its context."""
    words, geometry = report.words, report.geometry
    if words is None or geometry is None or not words.self_similarity:
        return section(
            "Words in context", "words", "No word was met often enough in the sample to say anything."
        )
    rows = [
        (i, alike, layer.anisotropy, alike - layer.anisotropy)
        for i, (alike, layer) in enumerate(zip(words.self_similarity, geometry.layers, strict=True))
    ]
    header = ["layer", "same word, two sentences", "any two tokens", "difference"]
    says = (
        f"Mean cosine of the same word in two sentences, over {words.n_words:,} words met five "
        "times or more, beside "
        "any two tokens. The nearer the two, the more the context decides; 1 would be one vector a word."
    )
    alike = table(header, rows, "Self-similarity")
    drawn = (
        plot(Plot(plots.contexts(words, geometry, "contexts"), says, alike), "contexts")
        if len(rows) > 1
        else Html(f"<p>{text(says)}</p>{alike}")
    )
    listed = [
        (one.word, one.n_occurrences, one.self_similarity, one.cosine,
         tokens(one.occurrences[0].tokens, one.occurrences[0].position, 24),
         tokens(one.occurrences[1].tokens, one.occurrences[1].position, 24))
        for one in words.ambiguous
    ]  # fmt: skip
    ambiguous = table(
        ["word", "times", "self-similarity", "least cosine", "in one sentence", "and in the other"],
        [(Html(f"<bdi>{text(word)}</bdi>"), *rest) for word, *rest in listed],
        "The words that change most with their context, with the two occurrences least alike",
    )
    return section("Words in context", "words", drawn, ambiguous)


def sentences_section(report: StoreReport) -> Html:
    """Return the section on outliers and near-duplicates."""
    found = report.sentences
    if found is None or not found.outliers:
        return section("Sentences that stand apart", "sentences", "Too few sentences to compare.")
    outliers = table(
        ["cosine with its five nearest", "sentence", "key"],
        [(one.cosine, tokens(one.tokens), one.key) for one in found.outliers],
        f"Least like any other, of {found.n_sentences:,} sentences of the sample",
    )
    pairs = table(
        ["cosine", "sentence", "other", "only the spelling differs in"],
        [(one.cosine, tokens(one.tokens), tokens(one.other), " and ".join(one.differs_in) or "–")
         for one in found.near_duplicates],
        f"Near-duplicates: {found.n_near_duplicates:,} pairs",
    ) if found.near_duplicates else "No near-duplicates in the sample."  # fmt: skip
    return section("Sentences that stand apart", "sentences", outliers, pairs)


def map_section(report: StoreReport) -> Html:
    """Return the section on tokens in two dimensions."""
    found = report.map
    if found is None:
        return Html("")
    coloured = "coloured and marked by label" if found.labels else "(give --corpus and --label for colours)"
    says = (
        f"{len(found.points):,} tokens of {found.layer} placed by {found.method}, {coloured}. Near "
        "in the map means "
        "near in space, far may mean little. Two principal components alone have "
        f"{found.explained:.1%} of the variance."
    )
    some = list(zip(found.words, found.labels or [""] * len(found.words), found.points, strict=True))[:200]
    numbers = table(
        ["token", "label", "x", "y"],
        [(Html(f"<bdi>{text(word)}</bdi>"), label, *point) for word, label, point in some],
        f"The first {len(some):,} points",
    )
    return section(
        "Map of tokens", "map", plot(Plot(plots.token_scatter(found, "tokens"), says, numbers), "tokens")
    )
