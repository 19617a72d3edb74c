"""The report: what an extraction did, and what of it the user should know."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Report:
    """What an extraction did.

    Attributes
    ----------
    n_encoded, n_encoded_tokens : int
        Sentences and tokens encoded and committed by this run.
    n_shards, n_bytes : int
        Shards and their bytes that this run added.
    n_sentences, n_distinct, n_cached : int
        Of the corpora, from the plan.
    seconds : float
        From the first batch to the last commit.
    too_large : list of str
        Sentences that did not fit into memory even alone, by place.
    refused : list of str
        Sentences whose vectors cannot be stored (NaN, or more than the codec holds), with the reason.
    token_budget : int
        Tokens per batch at the end (out-of-memory halves it); 0 where no encoder was needed.
    missing_context : list of str
        What the vectors depend on beside the tokens, where no sentence of the corpora came with a context.
    """

    n_sentences: int = 0
    n_distinct: int = 0
    n_cached: int = 0
    n_encoded: int = 0
    n_encoded_tokens: int = 0
    n_shards: int = 0
    n_bytes: int = 0
    seconds: float = 0.0
    token_budget: int = 0
    too_large: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    missing_context: list[str] = field(default_factory=list)

    @property
    def missing_surroundings(self) -> list[str]:
        """The old name of :attr:`missing_context`."""
        return self.missing_context

    @missing_surroundings.setter
    def missing_surroundings(self, names: list[str]) -> None:
        self.missing_context = names

    @property
    def notice(self) -> str:
        """What the user should know of the vectors; empty if there is nothing."""
        if not self.missing_context:
            return ""
        return (
            f"the vectors depend on more than the tokens ({', '.join(self.missing_context)}), but no "
            "sentence of the corpora comes with any of it: each is encoded as if it stood alone. Files hold "
            "tokens only; from_flair(corpus, encoder_or_dependence=encoder), of "
            "featurestore.integrations.flair_corpora, takes the rest along from a Flair corpus"
        )

    @property
    def tokens_per_second(self) -> float:
        """Encoding speed, commits included."""
        return self.n_encoded_tokens / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the report for ``--json``."""
        values = asdict(self)
        values["missing_surroundings"] = values.pop("missing_context")  # what it was called first: JSON stays
        return {**values, "tokens_per_second": round(self.tokens_per_second, 1)}
