"""The documents: their Python runs as it stands, their links lead somewhere, also on a package index."""

from __future__ import annotations

import ast
import hashlib
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

from featurestore.keys import ConditionedSentence, sentence_key
from tests.kit.places import ROOT

PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"), *ROOT.glob(".github/*.md"), *ROOT.glob("data/*.md"),
        *ROOT.glob("featurestore/**/*.md"), *ROOT.glob("tests/**/*.md"),
    ]
    if ".venv" not in path.parts
)  # fmt: skip
RUN = [
    "README.md",
    "featurestore/corpora/README.md",
    "featurestore/dataset/README.md",
    "featurestore/encoders/README.md",
    "featurestore/exchange/README.md",
    "featurestore/report/README.md",
    "featurestore/store/README.md",
]
"""Pages whose blocks run here; those of Flair and of training frameworks run beside what they tell of."""

LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Return the anchors that headings of a page make."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=240
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ and the store that bin/demo makes of the tagging corpora."""
    folder = tmp_path_factory.mktemp("documents")
    (folder / "data").symlink_to(ROOT / "data")
    made = run(
        folder, "-m", "featurestore", "extract", "data/tagging/train.conllu", "data/tagging/dev.conllu",
        "--store", "features/demo", "--encoder", "elmo:untrained-small?seed=0", "--no-progress",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return folder


@pytest.mark.parametrize("page", RUN)
def test_the_code_of_a_page_runs_block_by_block(folder: Path, page: str) -> None:
    blocks = python_blocks(page)
    assert blocks
    # The blocks of a page build on each other, and what stands in a README must run without warnings.
    done = run(folder, "-W", "error::DeprecationWarning", "-c", "\n".join(blocks))
    assert done.returncode == 0, done.stderr


def test_no_page_has_code_that_is_not_run() -> None:
    with_code = {name_of(path) for path in PAGES if python_blocks(name_of(path))}
    by_others = {f"featurestore/integrations/{name}.md" for name in ("FLAIR", "FRAMEWORKS")}
    by_others.add("featurestore/extraction/README.md")  # tests/extraction/cluster
    assert with_code == {*RUN, *by_others, "featurestore/store/FORMAT.md"}


def test_the_code_of_the_format_makes_the_keys() -> None:
    condition = b'{"context":1}'
    sentence = ConditionedSentence(("Zoë", "ran"), condition)
    names = {"hashlib": hashlib, "condition": condition, "tokens_as_bytes": [t.encode() for t in sentence]}
    keys = []
    for block in python_blocks("featurestore/store/FORMAT.md"):
        *statements, last = ast.parse(block).body
        exec(compile(ast.Module(statements, []), "FORMAT.md", "exec"), names)
        exec(f"key = {ast.unparse(last)}", names)
        keys.append(names["key"])
    assert keys == [sentence_key(tuple(sentence)), sentence_key(sentence)]


def test_the_example_training_loop_runs(folder: Path) -> None:
    done = run(
        folder, "-m", "featurestore.examples.training_loop", "--store", "features/demo",
        "--train", "data/tagging/train.conllu", "--dev", "data/tagging/dev.conllu", "--epochs", "2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "epoch 2: loss" in done.stdout


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        assert ROOT in target.parents, link
        if anchor:
            assert anchor in anchors(target), link


def test_links_of_the_page_on_a_package_index_do_not_depend_on_the_repository() -> None:
    # Beside what is installed, the folder may hold what setuptools left in it.
    (page,) = filter(None, (found.read_text("METADATA") for found in distributions(name="featurestore")))
    description = page.partition("\n\n")[2]
    assert "# featurestore" in description
    assert [link for link in LINK.findall(description) if not link.startswith("https://")] == []


def test_the_architecture_names_every_room() -> None:
    page = (ROOT / "featurestore" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rooms = {path.parent for path in (ROOT / "featurestore").rglob("*.py")} - {ROOT / "featurestore"}
    for room in rooms:
        name = room.relative_to(ROOT / "featurestore").as_posix()
        assert f"`{name}/`" in page, name
    for path in (ROOT / "featurestore").glob("*.py"):
        if path.stem not in ("__init__", "__main__"):
            assert f"`{path.stem}`" in page, path.stem


def test_every_command_is_in_its_table() -> None:
    from featurestore.cli.main import COMMANDS

    page = (ROOT / "featurestore" / "cli" / "README.md").read_text(encoding="utf-8")
    for command in COMMANDS:
        assert re.search(rf"^\|.*`{command}\b", page, re.M), command
