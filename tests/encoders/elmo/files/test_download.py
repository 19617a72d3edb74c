"""Downloads against a real HTTP server on this machine: whole, resumed, altered, wrong, missing, offline."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest

from featurestore.disk.places import cache_folder
from featurestore.encoders.elmo.files.cache import fetch_published
from featurestore.encoders.elmo.files.catalog import PUBLISHED, parse_source
from featurestore.encoders.elmo.files.download import download
from featurestore.encoders.loading import encoder_recipe, load_encoder
from featurestore.errors import DownloadError, EncoderError
from tests.kit.elmo import GOLDEN

BODY = np.random.Generator(np.random.PCG64(0)).bytes(3_000_000)
OTHER_BODY = BODY[:1_000_000] + b"altered" + BODY[1_000_007:]


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@dataclass
class Site:
    """What the server serves and how it behaves; what it was asked and how much it sent."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    honours_if_range: bool = True
    validators: bool = True
    cut_after: list[int] = field(default_factory=list)  # one entry per response to be broken off
    status: list[int] = field(default_factory=list)  # one entry per response; 200 lets it pass
    requests: list[dict[str, str]] = field(default_factory=list)
    n_sent: list[int] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def site(monkeypatch):
    site = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            site.requests.append(dict(self.headers))
            content = site.files.get(self.path)
            status = site.status.pop(0) if site.status else 200
            if status != 200 or content is None:
                self.send_error(404 if status == 200 else status)
                self.close_connection = True
                return
            etag = f'"{sha256(content)[:16]}"'
            start = 0
            wanted = self.headers.get("Range")
            if wanted and site.ranges and (not site.honours_if_range or self.headers.get("If-Range") == etag):
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content) and start:
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if site.validators:
                self.send_header("ETag", etag)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            body = content[start:]
            if site.cut_after:
                body = body[: site.cut_after.pop(0)]
                self.close_connection = True
            site.n_sent.append(len(body))
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_address[1]}"
        for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(variable, raising=False)
        yield site
        server.shutdown()
        thread.join()


def leftovers(folder):
    """Names in the folder but for the lock files, which stay."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


class TestOneFile:
    @pytest.fixture
    def target(self, tmp_path):
        return tmp_path / "cache" / "weights.hdf5"

    def fetch(self, site, target, **options):
        return download(f"{site.url}/file", target, backoff_seconds=0, **options)

    def stop_half_way(self, site, target, n_bytes=1_200_000):
        """Leave a part of the file behind, as a killed process or a lost network would."""
        site.cut_after, site.status = [n_bytes], [200, 404]
        with pytest.raises(DownloadError, match="404"):
            self.fetch(site, target)
        part = target.with_name(target.name + ".part")
        assert part.stat().st_size == n_bytes
        assert not target.exists()
        site.requests.clear()
        site.n_sent.clear()

    def test_fresh(self, site, target):
        site.files = {"/file": BODY}
        assert self.fetch(site, target, sha256=sha256(BODY)) == sha256(BODY)
        assert target.read_bytes() == BODY
        assert leftovers(target.parent) == ["weights.hdf5"]
        assert len(site.requests) == 1

    def test_through_a_proxy(self, site, target, monkeypatch):
        # A proxy is asked for the whole URL; nothing could resolve this host's name.
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.setenv("http_proxy", site.url)
        site.files = {"http://models.invalid/elmo/weights.hdf5": BODY}
        download("http://models.invalid/elmo/weights.hdf5", target, backoff_seconds=0)
        assert target.read_bytes() == BODY

    def test_there_already(self, site, target):
        target.parent.mkdir()
        target.write_bytes(b"mine")
        assert self.fetch(site, target) == ""
        assert target.read_bytes() == b"mine"
        assert site.requests == []

    def test_broken_off_transfers_go_on_where_they_stopped(self, site, target):
        site.files = {"/file": BODY}
        site.cut_after = [700_000, 0, 900_000]
        assert self.fetch(site, target) == sha256(BODY)
        assert site.n_sent == [700_000, 0, 900_000, len(BODY) - 1_600_000]
        assert [request.get("Range") for request in site.requests] == [
            None, "bytes=700000-", "bytes=700000-", "bytes=1600000-",
        ]  # fmt: skip

    def test_a_later_call_fetches_the_rest_alone(self, site, target):
        site.files = {"/file": BODY}
        self.stop_half_way(site, target)
        assert self.fetch(site, target, sha256=sha256(BODY)) == sha256(BODY)
        assert site.n_sent == [len(BODY) - 1_200_000]
        assert leftovers(target.parent) == ["weights.hdf5"]

    def test_server_without_ranges(self, site, target):
        site.files, site.ranges = {"/file": BODY}, False
        self.stop_half_way(site, target)
        assert self.fetch(site, target) == sha256(BODY)
        assert site.n_sent == [len(BODY)]

    def test_server_that_vouches_for_nothing_is_asked_for_everything(self, site, target):
        site.files, site.validators = {"/file": BODY}, False
        self.stop_half_way(site, target)
        assert self.fetch(site, target) == sha256(BODY)
        assert "Range" not in site.requests[0]

    @pytest.mark.parametrize("honours_if_range", [True, False])
    def test_altered_file_is_never_glued_to_the_old_half(self, site, target, honours_if_range):
        site.files, site.honours_if_range = {"/file": BODY}, honours_if_range
        self.stop_half_way(site, target)
        site.files = {"/file": OTHER_BODY}
        assert self.fetch(site, target) == sha256(OTHER_BODY)
        assert target.read_bytes() == OTHER_BODY

    def test_shrunken_file(self, site, target):
        site.files, site.honours_if_range = {"/file": BODY}, False
        self.stop_half_way(site, target)
        site.files = {"/file": BODY[:1000]}
        assert self.fetch(site, target) == sha256(BODY[:1000])

    def test_wrong_hash_leaves_nothing(self, site, target):
        site.files = {"/file": OTHER_BODY}
        with pytest.raises(DownloadError) as caught:
            self.fetch(site, target, sha256=sha256(BODY))
        assert sha256(BODY) in str(caught.value)
        assert sha256(OTHER_BODY) in str(caught.value)
        assert leftovers(target.parent) == []

    def test_temporary_errors_are_survived(self, site, target):
        site.files, site.status = {"/file": BODY}, [503, 500, 429]
        assert self.fetch(site, target) == sha256(BODY)
        assert len(site.requests) == 4

    def test_lasting_errors_are_not_tried_for_ever(self, site, target):
        site.files, site.status = {"/file": BODY}, [503] * 100
        with pytest.raises(DownloadError, match="503"):
            self.fetch(site, target)
        assert 1 < len(site.requests) < 10

    def test_always_truncated(self, site, target):
        site.files, site.cut_after = {"/file": BODY}, [0] * 100
        with pytest.raises(DownloadError, match="attempts"):
            self.fetch(site, target)
        assert not target.exists()

    def test_not_found(self, site, target):
        with pytest.raises(DownloadError, match="404") as caught:
            self.fetch(site, target)
        assert str(target) in str(caught.value)
        assert f"{site.url}/file" in str(caught.value)
        assert len(site.requests) == 1

    def test_unreachable(self, target):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
            url = f"http://127.0.0.1:{unused.getsockname()[1]}/file"
            with pytest.raises(DownloadError, match="proxy") as caught:
                download(url, target, backoff_seconds=0)
        assert url in str(caught.value)

    def test_other_schemes_are_refused(self, tmp_path, target):
        (tmp_path / "file").write_bytes(BODY)
        with pytest.raises(DownloadError, match="http"):
            download(f"file://{tmp_path / 'file'}", target)

    def test_folder_that_cannot_be(self, site, tmp_path):
        (tmp_path / "file").write_bytes(b"")
        site.files = {"/file": BODY}
        with pytest.raises(DownloadError, match="FEATURESTORE_CACHE"):
            self.fetch(site, tmp_path / "file" / "weights.hdf5")

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
    def test_full_disk(self, site, target):
        site.files = {"/file": BODY}
        target.parent.mkdir()
        target.with_name(target.name + ".part").symlink_to("/dev/full")
        with pytest.raises(DownloadError, match="no room"):
            self.fetch(site, target)
        assert not target.exists()

    def test_two_processes_at_once(self, site, target):
        site.files = {"/file": BODY}
        program = (
            "import sys, pathlib; from featurestore.encoders.elmo.files.download import download\n"
            "download(sys.argv[1], pathlib.Path(sys.argv[2]))\n"
        )
        command = [sys.executable, "-c", program, f"{site.url}/file", str(target)]
        processes = [subprocess.Popen(command) for _ in range(3)]
        assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
        assert target.read_bytes() == BODY
        assert len(site.requests) == 1


class TestPublishedModels:
    """``elmo:medium`` from a mirror that serves the golden model's files under the published names."""

    @pytest.fixture
    def mirror(self, site, tmp_path, monkeypatch):
        model = PUBLISHED["medium"]
        site.files = {
            f"/elmo/{model.options_path}": (GOLDEN / "options.json").read_bytes(),
            f"/elmo/{model.weights_path}": (GOLDEN / "weights.hdf5").read_bytes(),
        }
        monkeypatch.setenv("FEATURESTORE_ELMO_BASE_URL", f"{site.url}/elmo/")
        monkeypatch.setenv("FEATURESTORE_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("FEATURESTORE_OFFLINE", raising=False)
        return site

    @property
    def weights_hash(self):
        return sha256((GOLDEN / "weights.hdf5").read_bytes())

    def test_first_use_downloads_and_later_ones_do_not(self, mirror, monkeypatch):
        first = load_encoder("elmo:medium")
        assert len(mirror.requests) == 2
        assert first.recipe["weights_sha256"] == self.weights_hash
        again = load_encoder("elmo:medium")
        monkeypatch.setenv("FEATURESTORE_OFFLINE", "1")
        offline = load_encoder("elmo:medium")
        assert len(mirror.requests) == 2
        assert first.recipe == again.recipe == offline.recipe == encoder_recipe("elmo:medium")
        local = load_encoder(f"elmo:{GOLDEN / 'options.json'},{GOLDEN / 'weights.hdf5'}")
        assert local.recipe == first.recipe

    def test_changed_upstream_after_the_first_download(self, mirror):
        files = fetch_published(parse_source("medium"))
        record = files.weights.with_name(files.weights.name + ".sha256")
        assert record.read_text().split() == [self.weights_hash, files.weights.name]
        files.weights.unlink()
        mirror.files = {path: content + b" " for path, content in mirror.files.items()}
        with pytest.raises(DownloadError) as caught:
            fetch_published(parse_source("medium"))
        assert self.weights_hash in str(caught.value)
        assert str(record) in str(caught.value)
        assert not files.weights.exists()

    def test_changed_in_the_cache(self, mirror):
        files = fetch_published(parse_source("medium"))
        files.weights.write_bytes(files.weights.read_bytes() + b" ")
        with pytest.raises(DownloadError, match="recorded") as caught:
            load_encoder("elmo:medium")
        assert self.weights_hash in str(caught.value)

    def test_changed_options_in_the_cache(self, mirror):
        files = fetch_published(parse_source("medium"))
        fields = json.loads(files.options.read_bytes())
        fields["lstm"]["cell_clip"] = 5
        files.options.write_text(json.dumps(fields), encoding="utf-8")
        with pytest.raises(DownloadError, match="options"):
            load_encoder("elmo:medium")

    def test_pin_by_the_user(self, mirror):
        spec = f"elmo:medium#sha256={self.weights_hash}"
        assert load_encoder(spec).spec == spec
        with pytest.raises(DownloadError, match="0" * 64):
            load_encoder(f"elmo:medium#sha256={'0' * 64}")

    def test_wrong_pin_before_the_first_download(self, mirror):
        with pytest.raises(DownloadError, match="pinned"):
            load_encoder(f"elmo:medium#sha256={'0' * 64}")
        with pytest.raises(EncoderError, match="not here"):
            encoder_recipe("elmo:medium")

    def test_small_is_pinned_by_the_catalog(self, mirror):
        model = PUBLISHED["small"]
        contents = list(mirror.files.values())
        mirror.files = {
            f"/elmo/{model.options_path}": contents[0],
            f"/elmo/{model.weights_path}": contents[1],
        }
        with pytest.raises(DownloadError, match="747ba97abce8a5f4"):
            load_encoder("elmo:small")

    def test_offline_says_which_file_goes_where(self, mirror, monkeypatch):
        monkeypatch.setenv("FEATURESTORE_OFFLINE", "1")
        with pytest.raises(DownloadError) as caught:
            load_encoder("elmo:medium")
        model = PUBLISHED["medium"]
        place = cache_folder() / "elmo" / "medium" / model.options_path.rsplit("/", 1)[-1]
        assert str(place) in str(caught.value)
        assert f"{mirror.url}/elmo/{model.options_path}" in str(caught.value)
        assert mirror.requests == []

    def test_files_put_there_by_hand_are_used_offline_and_recorded(self, mirror, monkeypatch):
        monkeypatch.setenv("FEATURESTORE_OFFLINE", "1")
        model = PUBLISHED["medium"]
        folder = cache_folder() / "elmo" / "medium"
        folder.mkdir(parents=True)
        for relative, name in ((model.options_path, "options.json"), (model.weights_path, "weights.hdf5")):
            (folder / relative.rsplit("/", 1)[-1]).write_bytes((GOLDEN / name).read_bytes())
        assert load_encoder("elmo:medium").recipe["weights_sha256"] == self.weights_hash
        assert len(list(folder.glob("*.sha256"))) == 2

    def test_every_model_has_its_own_files(self):
        paths = [path for model in PUBLISHED.values() for path in (model.options_path, model.weights_path)]
        assert len(set(paths)) == 12
        assert all(path.endswith(("_options.json", ".hdf5")) for path in paths)


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("FEATURESTORE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "featurestore"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "featurestore"
    monkeypatch.setenv("FEATURESTORE_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
