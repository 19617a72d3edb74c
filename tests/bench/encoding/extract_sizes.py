"""What an extraction costs against the size of the corpus: seconds and bytes on disk.

From distinct sentences of real text to a committed store, all cores, the encoder loaded before.

    python -m tests.bench.encoding.extract_sizes
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from featurestore import extract, load_encoder
from tests.bench.encoding.encode import PROMISES
from tests.bench.encoding.encode_curves import up_to
from tests.bench.figures import Table
from tests.bench.report import Curve, PartResult, part_options, print_part, use_cores
from tests.bench.serving.serve_layouts import size_of
from tests.bench.texts import sentences as real_sentences
from tests.bench.texts import source

SIZES = (300, 1_000, 3_000, 10_000, 30_000, 100_000)
ENCODERS = (
    ("elmo:untrained-original", "float32", 10_000),
    ("elmo:untrained-original", "bfloat16", 30_000),
    ("elmo:demo", "float32", 100_000),
)
"""Specification, precision, and the largest size in reasonable time."""


def measured(encoders: Sequence[tuple[str, str, int]], sizes: Sequence[int]) -> PartResult:
    """Measure each encoder at each size that it is fast enough for."""
    text = real_sentences(max(most for _, _, most in encoders))
    table = Table("Extraction", ["tokens", "seconds", "tokens/s", "MB", "bytes a token"], ratio="tokens/s")
    curves: dict[str, list[Curve]] = {"seconds": [], "megabytes": []}
    for spec, precision, most in encoders:
        encoder = load_encoder(spec, precision=precision, device="cpu")
        encoder.encode(text[:16])
        points = []
        for size in (size for size in sizes if size <= most):
            part = up_to(text, size)
            if hasattr(encoder, "forget_types"):
                encoder.forget_types()
            with tempfile.TemporaryDirectory() as name:
                started = time.perf_counter()
                report = extract(part, encoder, Path(name) / "store", device="cpu", progress=False)
                seconds = time.perf_counter() - started
                points.append((report.n_encoded_tokens, seconds, size_of(Path(name)) / 1e6))
        name = f"{spec.removeprefix('elmo:untrained-').removeprefix('elmo:')}, {precision}"
        n, seconds, megabytes = points[-1]
        table.add(f"featurestore, {name}", "ours", n, seconds, n / seconds, megabytes, megabytes * 1e6 / n)
        x = [float(point[0]) for point in points]
        curves["seconds"].append(Curve(name, x, [point[1] for point in points]))
        curves["megabytes"].append(Curve(name, x, [point[2] for point in points]))
    return PartResult(
        tables=[table], curves=curves, promises=PROMISES, settings={"text": source(), "codec": "float16"}
    )


@click.command()
@part_options
def main(quick: bool, as_json: bool) -> None:
    use_cores(quick)
    encoders = [("elmo:demo", "float32", 1_000)] if quick else ENCODERS
    print_part(measured(encoders, SIZES), as_json)


if __name__ == "__main__":
    main()
