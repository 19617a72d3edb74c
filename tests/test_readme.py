"""The README's Python blocks run as they stand, in order, on the sample corpora."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.places import ROOT


def python_blocks() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    # tests/integrations/test_flair_page.py runs that page, with models that are small and here.
    start = text.index("\n## For Flair users\n")
    text = text[:start] + text[text.index("\n## ", start + 1) :]
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=240
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ and the store that bin/demo makes of the tagging corpora."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "data").symlink_to(ROOT / "data")
    made = run(
        folder, "-m", "featurestore", "extract", "data/tagging/train.conllu", "data/tagging/dev.conllu",
        "--store", "features/demo", "--encoder", "elmo:untrained-small?seed=0", "--no-progress",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return folder


def test_the_readme_has_its_python_blocks() -> None:
    assert len(python_blocks()) >= 3


@pytest.mark.parametrize("number", range(len(python_blocks())))
def test_readme_block_runs(folder: Path, number: int) -> None:
    done = run(folder, "-W", "error::DeprecationWarning", "-c", python_blocks()[number])
    assert done.returncode == 0, done.stderr


def test_the_example_training_loop_runs(folder: Path) -> None:
    done = run(
        folder, "-m", "featurestore.examples.training_loop", "--store", "features/demo",
        "--train", "data/tagging/train.conllu", "--dev", "data/tagging/dev.conllu", "--epochs", "2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "epoch 2: loss" in done.stdout
