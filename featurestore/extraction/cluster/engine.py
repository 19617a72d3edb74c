"""Ray as the engine of an extraction: what a user chooses of a cluster, and how an encoder gets there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from featurestore.corpora.corpus import Corpus
from featurestore.encoders.loading import recipe_choices
from featurestore.encoders.sources import EncoderSource, LoadedEncoder, NamedEncoder
from featurestore.errors import UsageError
from featurestore.extraction.cluster.connecting import require_ray
from featurestore.extraction.cluster.driver import ClusterExtraction
from featurestore.extraction.destination import Destination
from featurestore.extraction.planning.plan import Plan
from featurestore.extraction.progress import Progress
from featurestore.families import OWN, family_of


@dataclass(frozen=True)
class Ray:
    """Runs an extraction by actors on a Ray cluster: ``featurestore.extract(..., engine=Ray(...))``.

    Parameters
    ----------
    address : str
        ``auto`` (the cluster that this machine belongs to, or ``RAY_ADDRESS`` names), ``HOST:PORT``,
        ``ray://HOST:PORT``, or ``local``: one of this machine alone, for this run. Where the program has
        called ``ray.init`` already, that cluster is used.
    actors : int, optional
        Each loads the encoder; by default as many as the cluster has room for.
    cpus_per_actor, gpus_per_actor : float
        What one actor takes; its arithmetic uses as many threads as it has CPUs.

    Raises
    ------
    UsageError
        If a number is below 0 or not finite, ``actors`` is not a whole number of at least 1, an actor takes
        neither CPUs nor GPUs, or the address is not text.
    """

    address: str = "auto"
    actors: int | None = None
    cpus_per_actor: float = 1
    gpus_per_actor: float = 0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("actors", self.actors, 1), ("cpus_per_actor", self.cpus_per_actor, 0),
            ("gpus_per_actor", self.gpus_per_actor, 0),
        ):  # fmt: skip
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if value is not None and not (is_number and least <= value < 1e6):
                raise UsageError(f"{name} is {value!r}: expected a number of at least {least}")
        if self.actors is not None and not isinstance(self.actors, int):
            raise UsageError(f"actors is {self.actors!r}: expected a whole number")
        if not isinstance(self.address, str) or not self.address:
            raise UsageError(f"the address of a cluster is text such as 'auto', not {self.address!r}")
        if not self.cpus_per_actor and not self.gpus_per_actor:
            raise UsageError("an actor that takes neither CPUs nor GPUs could be started without end")

    def extraction(
        self,
        corpora: Sequence[Corpus],
        source: EncoderSource,
        destination: Destination,
        plan: Plan,
        *,
        device: str,
        codec: str | None,
        token_budget: int | None,
        shard_bytes: int | None,
        progress: Progress | None,
    ) -> ClusterExtraction:
        """Return the run; nothing is connected to yet.

        Raises
        ------
        UsageError
            If Ray is not installed, the device and the GPUs asked for contradict each other, or the encoder
            is an object that cannot be sent to other processes.
        """
        ray = require_ray()
        return ClusterExtraction(
            corpora, _pickled(ray, source), destination, plan, self, device=self._device(source, device),
            codec=codec, token_budget=token_budget, shard_bytes=shard_bytes, progress=progress,
        )  # fmt: skip

    def _device(self, source: EncoderSource, asked: str) -> str:
        """Return the device for the actors."""
        if isinstance(source, LoadedEncoder):
            where = source.encoder.device
            if where.startswith("cuda") != bool(self.gpus_per_actor):
                raise UsageError(
                    f"the encoder was loaded on {where}, and an actor has {self.gpus_per_actor:g} GPUs: pass "
                    "its specification, which each actor loads on what it has"
                )
            return "auto"
        if asked.startswith("cuda") and not self.gpus_per_actor:
            raise UsageError(
                f"device {asked} without GPUs for the actors: ask Ray for them (--gpus-per-actor 1, in "
                "Python gpus_per_actor=1)"
            )
        if self.gpus_per_actor:
            if asked == "cpu":
                raise UsageError("device cpu with GPUs for the actors: leave one of them out")
            return "cuda"  # of those of the machine Ray shows an actor its own
        return "cpu"


def _pickled(ray: Any, source: EncoderSource) -> bytes:
    """Return what each actor loads its encoder from."""
    try:
        return bytes(ray.cloudpickle.dumps(source))
    except Exception as error:
        spec, family = source.spec, family_of(source.spec)
        if isinstance(source, LoadedEncoder) and family is not None and family is not OWN:
            # Loaded again by its specification; its recipe is compared like any other's.
            choices: dict[str, Any] = {**recipe_choices(source.encoder.recipe)}
            named = NamedEncoder(spec, **choices)
            return bytes(ray.cloudpickle.dumps(named))
        raise UsageError(
            f"the encoder {spec!r} cannot be sent to other processes ({type(error).__name__}: {error}): pass "
            "a specification that each of them loads (PACKAGE.MODULE:CLASS), or make it picklable"
        ) from error
