"""What ``--json`` promises: JSON schemas of the commands that see into stores."""

from __future__ import annotations

from typing import Any


def _object(**properties: Any) -> dict[str, Any]:
    """Return the schema of an object that has these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


TEXT, NUMBER, FLAG = {"type": "string"}, {"type": "number"}, {"type": "boolean"}
COUNT = {"type": "integer", "minimum": 0}
TOKENS = {"type": "array", "items": TEXT, "minItems": 1}
KEY = {"type": "string", "pattern": "^[0-9a-f]{32}$"}

NEIGHBORS = _object(
    query=_object(tokens=TOKENS, position=COUNT, key=_or_null(KEY), is_stored=FLAG),
    metric={"enum": ["cosine", "l2"]},
    layer=_or_null(COUNT),
    n_compared=COUNT,
    n_tokens=COUNT,
    sampled_sentences=_or_null(COUNT),
    neighbors=_list(
        _object(score=NUMBER, token=TEXT, position=COUNT, tokens=TOKENS, condition=_or_null(TEXT), key=KEY)
    ),
)

_SPREAD = _or_null(_object(mean=NUMBER, median=NUMBER, p99=NUMBER, largest=NUMBER, smallest=NUMBER))
_PAIR_OF_SHAPES = {"type": "array", "items": _list(COUNT), "minItems": 2, "maxItems": 2}
COMPARE = _object(
    a=TEXT, b=TEXT, tolerance=_or_null(NUMBER), within=FLAG,
    recipe=_list(_object(field=TEXT, ours={}, theirs={})),
    codecs=_list(_list(TEXT)), shapes=_PAIR_OF_SHAPES,
    n_a=COUNT, n_b=COUNT, n_both=COUNT, n_compared=COUNT, n_tokens=COUNT, is_sample=FLAG,
    relative_l2=_SPREAD, cosine=_SPREAD, by_layer=_list(NUMBER), alignment=_list(_list(_or_null(NUMBER))),
    overlap=_or_null(NUMBER), n_aligned=COUNT, n_around=COUNT,
    sentences=_list(_object(tokens=TOKENS, key=KEY, relative_l2=NUMBER, position=COUNT)),
    words=_list(_object(word=TEXT, n_occurrences=COUNT, difference=NUMBER)),
)  # fmt: skip

DIFF = _object(
    store=TEXT, snapshot=COUNT,
    corpora=_list(
        _object(
            path=TEXT, n_sentences=COUNT, n_tokens=COUNT, n_distinct=COUNT, n_missing=COUNT,
            n_missing_tokens=COUNT,
            missing=_list(
                _object(
                    tokens=TOKENS, key=KEY, place=TEXT,
                    like=_list(_object(tokens=TOKENS, differs_in=_list(TEXT))),
                )
            ),
        )
    ),
    n_stored=COUNT, n_missing=COUNT, n_missing_tokens=COUNT, n_unused=COUNT, n_unused_tokens=COUNT,
    n_unused_bytes=COUNT, unused_keys=_or_null(_list(KEY)),
    completing=_or_null(
        {
            "anyOf": [
                _object(unknown=TEXT),
                _object(
                    n_bytes=COUNT, free_bytes=_or_null(COUNT), seconds=_or_null(NUMBER),
                    seconds_low=_or_null(NUMBER), seconds_high=_or_null(NUMBER), basis=TEXT,
                ),
            ]
        }
    ),
)  # fmt: skip
