"""What is refused before any cluster is asked."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs Ray: pip install 'featurestore[ray]'")

from featurestore import Ray, extract
from featurestore.errors import UsageError
from tests.kit.doubles import DoubleEncoder, draw_sentences

SENTENCES = draw_sentences(5)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "ray start --head"),
        ("ray://127.0.0.1:1", "cannot connect to a Ray cluster"),
        ("no-such-host.invalid:6379", "no-such-host.invalid"),
        ("nonsense", "expected auto, local, HOST:PORT"),
        ("127.0.0.1:99999", "cannot connect"),
    ],
)
def test_no_cluster_at_the_address(tmp_path, address, said):
    with pytest.raises(UsageError, match=said):
        extract(SENTENCES, DoubleEncoder(), tmp_path / "store", engine=Ray(address), progress=False)
    assert list(tmp_path.iterdir()) == []
