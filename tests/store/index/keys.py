"""Keys as hypothesis draws them."""

from __future__ import annotations

from hypothesis import strategies as st

# Few different halves, so that many keys share their first or last eight bytes.
HALVES = st.sampled_from([bytes(8), b"\xff" * 8, b"\0" * 7 + b"\1", b"\x80" + bytes(7), b"abcdefgh"])
KEYS = st.builds(lambda high, low: high + low, HALVES, HALVES) | st.binary(min_size=16, max_size=16)
KEY_LISTS = st.lists(KEYS, max_size=12)
