"""Tokens per second of an ELMo encoder over a CoNLL-U or plain text file.

    python -m tests.bench.encoding.elmo_speed FILE --spec elmo:untrained-original --threads 2

Prints what it ran on. Sentences are encoded in batches of similar length, as extraction does. A small
batch before the clock starts keeps one-off costs of the libraries out; the vectors of word types are computed
within the time. With --reference, also the relative L2 difference from that precision.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path

import numpy as np
import torch

from featurestore import load_encoder, open_corpus
from featurestore.extraction.batching import batches_by_length
from tests.bench.machine import machine


def main() -> None:
    """Run the measurement."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("file", type=Path)
    parser.add_argument("--spec", default="elmo:untrained-original")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--layers", default="average")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--token-budget", type=int, help="default: the encoder's own")
    parser.add_argument("--max-tokens", type=int, help="stop reading the file after about this many tokens")
    parser.add_argument("--reference", help="precision to compare the vectors with")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    sentences = [example.tokens for example in open_corpus(arguments.file)]
    if arguments.max_tokens:
        ends = np.cumsum([len(sentence) for sentence in sentences])
        sentences = sentences[: int(np.searchsorted(ends, arguments.max_tokens)) + 1]

    def encode(precision: str) -> tuple[float, list[np.ndarray], str]:
        encoder = load_encoder(
            arguments.spec, layers=arguments.layers, precision=precision, device=arguments.device
        )
        budget = arguments.token_budget or encoder.token_budget
        lengths = [len(sentence) for sentence in sentences]
        batches = [[sentences[i] for i in batch] for batch in batches_by_length(lengths, budget)]
        encoder.encode(batches[-1][:64])
        encoder.forget_types()
        start, start_cpu = time.perf_counter(), time.process_time()
        vectors = [vector for batch in batches for vector in encoder.encode(batch)]
        seconds = time.perf_counter() - start
        cpu_seconds = time.process_time() - start_cpu
        described = f"{encoder.device}, precision {encoder.recipe['precision']}, batches of {budget} tokens"
        # Far fewer CPU seconds than threads times seconds: other programs had the cores, measure again.
        described += f", {cpu_seconds:.1f} CPU seconds"
        return seconds, vectors, described

    n_tokens = sum(map(len, sentences))
    n_types = len({token for sentence in sentences for token in sentence})
    print(f"machine: {machine()}")
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"torch {torch.__version__} ({capability}), {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        print(f"GPU: {torch.cuda.get_device_name()}")
    print(f"{arguments.file.name}: {len(sentences):,} sentences, {n_tokens:,} tokens, {n_types:,} types")
    seconds, vectors, described = encode(arguments.precision)
    print(f"{arguments.spec} on {described}")
    print(f"{n_tokens / seconds:,.0f} tokens/s ({seconds:.1f} s)")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    if arguments.reference:
        _, reference, _ = encode(arguments.reference)
        ours, theirs = np.concatenate(vectors), np.concatenate(reference)
        error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
        print(f"relative L2 against {arguments.reference}: {error:.2e}")


if __name__ == "__main__":
    main()
