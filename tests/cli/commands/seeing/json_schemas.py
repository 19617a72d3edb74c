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

_DISTRIBUTION = _object(
    mean=NUMBER, std=NUMBER, smallest=NUMBER, median=NUMBER, p95=NUMBER, largest=NUMBER, edges=_list(NUMBER),
    counts=_list(COUNT),
)  # fmt: skip
_LAYER = _object(
    norms=_DISTRIBUTION, dead=_list(COUNT), saturated=_list(COUNT),
    dominant=_list(_object(dimension=COUNT, share=NUMBER, mean=NUMBER)), share_of_five=NUMBER,
    anisotropy=_or_null(NUMBER), effective_dimension=_or_null(NUMBER),
)  # fmt: skip
_OCCURRENCE = _object(tokens=TOKENS, position=COUNT, key=KEY)
REPORT = _object(
    store=TEXT, encoder=TEXT, fingerprint=TEXT, snapshot=COUNT, dim=COUNT, n_layers=COUNT,
    recipe={"type": "object"},
    codec_error=_object(relative_l2=NUMBER, cosine_distance=NUMBER, n_tokens=COUNT),
    n_sampled=COUNT, seed=COUNT,
    contents=_object(
        n_sentences=COUNT, n_tokens=COUNT, n_shards=COUNT, n_bytes=COUNT, vector_bytes=COUNT,
        head_bytes=COUNT,
        codecs={"type": "object"}, n_repeats=COUNT, n_read=COUNT, repeat_bytes=COUNT,
        commits=_list(
            _object(number=COUNT, time=TEXT, n_sentences=COUNT, n_tokens=COUNT, n_bytes=COUNT,
                    tokens_per_second=NUMBER, device=TEXT)
        ),
    ),
    health=_object(
        checked=TEXT, findings=_list(TEXT), n_canaries=COUNT, n_quarantined=COUNT, n_orphaned=COUNT,
        n_unreferenced=COUNT, gc_files=COUNT, gc_bytes=COUNT, notes=_list(TEXT), is_sound=FLAG,
    ),
    statistics=_or_null(
        _object(
            n_sentences=COUNT, n_tokens=COUNT, n_repeated=COUNT, lengths=_DISTRIBUTION, norms=_DISTRIBUTION,
            n_norms=COUNT, value_mean=NUMBER, value_std=NUMBER,
        )
    ),
    geometry=_or_null(
        _object(n_tokens=COUNT, n_kept=COUNT, layers=_list(_LAYER), alignment=_list(_list(_or_null(NUMBER))))
    ),
    words=_or_null(
        _object(
            n_words=COUNT, self_similarity=_list(NUMBER),
            ambiguous=_list(
                _object(word=TEXT, n_occurrences=COUNT, self_similarity=NUMBER, cosine=NUMBER,
                        occurrences=_list(_OCCURRENCE))
            ),
        )
    ),
    sentences=_or_null(
        _object(
            n_sentences=COUNT, n_near_duplicates=COUNT,
            outliers=_list(_object(tokens=TOKENS, key=KEY, cosine=NUMBER)),
            near_duplicates=_list(
                _object(tokens=TOKENS, other=TOKENS, keys=_list(KEY), cosine=NUMBER, differs_in=_list(TEXT))
            ),
        )
    ),
    map=_or_null(
        _object(method=TEXT, layer=TEXT, points=_list(_list(NUMBER)), words=_list(TEXT), labels=_list(TEXT),
                explained=NUMBER)
    ),
    probe=_or_null(
        _object(
            label=TEXT, of={"enum": ["token", "sentence"]}, n_trained=COUNT, n_tested=COUNT, n_labels=COUNT,
            majority=NUMBER, scores=_list(_object(name=TEXT, accuracy=NUMBER, margin=NUMBER)),
            n_missing=COUNT,
        )
    ),
)  # fmt: skip
