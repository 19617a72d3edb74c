"""Making the warm initial state of a model: the mean of the states that running text leaves behind."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch

from featurestore.devices import choose_device, out_of_memory_as_ours
from featurestore.encoders.base import WarmUp
from featurestore.encoders.elmo.files.catalog import UntrainedSource, parse_source
from featurestore.encoders.elmo.files.initial_state import WarmState, same_state, write_state
from featurestore.encoders.elmo.files.resolving import find_files
from featurestore.encoders.elmo.model.network import BiLM, CarriedState, InitialState
from featurestore.encoders.elmo.model.numerics import full_float32_products
from featurestore.encoders.elmo.model.options import ElmoOptions
from featurestore.errors import EncoderError, UsageError
from featurestore.keys import Sentence, check_sentence

N_STREAMS = 32
"""Streams of consecutive sentences that run side by side, at most."""

BURN_IN = 4
"""First sentences of each stream whose states are left out: they still remember the start from zeros."""

_SENTENCES_PER_STREAM = 3 * BURN_IN
"""A text that is short makes fewer streams rather than streams that are all burn-in."""


def split_streams(sentences: Sequence[Sentence]) -> list[Sequence[Sentence]]:
    """Return streams of consecutive sentences, all of the same number; what does not fill them is left out.

    Raises
    ------
    EncoderError
        If the text is too short for one stream.
    """
    if len(sentences) < _SENTENCES_PER_STREAM:
        raise EncoderError(
            f"a text of {len(sentences)} sentences is too short to warm up with: expected at least "
            f"{_SENTENCES_PER_STREAM}, better thousands. Name a larger corpus"
        )
    n_streams = min(N_STREAMS, len(sentences) // _SENTENCES_PER_STREAM)
    length = len(sentences) // n_streams
    return [sentences[row * length : (row + 1) * length] for row in range(n_streams)]


def warm_state(
    network: BiLM, streams: Sequence[Sequence[Sentence]], *, progress: Callable[[int], object] | None = None
) -> InitialState:
    """Return the mean state after a sentence, over the sentences of running text.

    The streams run side by side with their state carried from sentence to sentence, both markers being
    ordinary positions. The state after the last position that a direction reads (hidden before any skip
    connection, and memory) is averaged in float64 over all sentences but the first :data:`BURN_IN` of each
    stream.

    On a CPU one thread computes, whatever torch is set to, so that the same text gives the same bits on the
    same machine. On another kind of machine it agrees within rounding, which is another hash: a state is
    made once and its file kept.

    Parameters
    ----------
    network : BiLM
    streams : sequence of sequence of sentences
        All of the same length, of more than :data:`BURN_IN` sentences: see :func:`split_streams`.
    progress : callable, optional
        Called with the number of tokens after each batch.

    Returns
    -------
    InitialState
        float32, on the CPU.
    """
    carried = CarriedState(network)
    zeros = InitialState.zeros(network.options)
    hidden, memory = zeros.hidden.double(), zeros.memory.double()
    n_sentences = 0
    with _one_thread(), torch.inference_mode(), full_float32_products():
        for number, batch in enumerate(zip(*streams, strict=True)):
            network.layers_carrying(batch, carried)
            if number >= BURN_IN:
                for layer, directions in enumerate(carried.states):
                    for direction, state in enumerate(directions):
                        hidden[layer, direction] += state.hidden.double().sum(0).cpu()
                        memory[layer, direction] += state.memory.double().sum(0).cpu()
                n_sentences += len(batch)
            if progress is not None:
                progress(sum(map(len, batch)))
    return InitialState((hidden / n_sentences).float(), (memory / n_sentences).float())


def warm_up(
    rest: str,
    sentences: Iterable[Sentence],
    *,
    max_tokens: int,
    device: str = "auto",
    out: Path | None = None,
    force: bool = False,
    progress: Callable[[int], object] | None = None,
) -> WarmUp:
    """Make the warm state of a model and store it beside its weights.

    Parameters
    ----------
    rest : str
        The specification after ``elmo:``.
    sentences : iterable of tuple of str
        Running text, in its order; read until ``max_tokens``.
    max_tokens : int
    device : str
        As for :func:`featurestore.encoders.loading.load_encoder`.
    out : Path, optional
        Where to write instead.
    force : bool
        Replace a state that differs.
    progress : callable, optional
        Called with the number of tokens after each batch.

    Raises
    ------
    UsageError
        If the model is untrained, or an argument makes no sense.
    EncoderError
        If the model cannot be loaded, the text is too short, the state cannot be written, or the file holds a
        state that differs.
    """
    source = parse_source(rest)
    if isinstance(source, UntrainedSource):
        raise UsageError(f"{source.spec} is untrained: it has no files, beside which a state could lie")
    chosen_device = choose_device(device)
    streams = split_streams(_first(sentences, max_tokens))
    files = find_files(source, published="download")
    path = out or files.warm_state
    if not path.parent.is_dir():
        raise EncoderError(f"cannot write the warm state {path}: there is no folder {path.parent}")

    options = ElmoOptions.read(files.options)
    weights, digest = files.read_weights(options)
    with out_of_memory_as_ours(f"warming up {source.spec}", "Choose another device or shorter sentences"):
        network = BiLM(options, weights, device=chosen_device)
        initial = warm_state(network, streams, progress=progress)
    state = WarmState(initial.hidden.numpy(), initial.memory.numpy(), digest)

    written = not (path.exists() and same_state(path, options, state))
    if written:
        if path.exists() and not force:
            raise EncoderError(
                f"{path} is there and is another state: stores made with it would no longer match this "
                "model. Keep it, write elsewhere (--out), or replace it (--force)"
            )
        write_state(path, state)
    return WarmUp(
        spec=source.spec,
        path=path,
        in_place=path.resolve() == files.warm_state.resolve(),
        written=written,
        sha256=state.sha256,
        weights_sha256=digest,
        n_sentences=sum(map(len, streams)),
        n_tokens=sum(len(sentence) for stream in streams for sentence in stream),
        n_streams=len(streams),
    )


def _first(sentences: Iterable[Sentence], max_tokens: int) -> list[Sentence]:
    """Return the first sentences, of ``max_tokens`` tokens together at most."""
    taken: list[Sentence] = []
    n_tokens = 0
    for sentence in sentences:
        check_sentence(sentence)
        n_tokens += len(sentence)
        if n_tokens > max_tokens:
            break
        taken.append(sentence)
    return taken


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute in one thread inside: products split among threads may add up in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
