"""Makes the bundled model `elmo:demo`: prepares the texts, trains on them, puts the files where they belong.

    .venv/bin/python -m tests.bench.quality.demo_model --corpora ../shared/corpora --work runs/elmo-demo

About an hour on two cores; after a kill the same command goes on. `--install` then makes the warm state and
copies the model into the package. The texts: UD EWT (its training part only),
MASC, presidential addresses, and the valid and test parts of WikiText-2, whose paragraphs are cut into
sentences here and whose `@-@` marks are undone. No development or test part of any corpus that is scored is
among them.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from featurestore.encoders.elmo.files.catalog import BUNDLED_FOLDER

LICENCES = (
    "en_ewt-ud-train.conllu: the training part of the Universal Dependencies English Web Treebank (Silveira "
    "et al. 2014, A Gold Standard Dependency Corpus for English, and its contributors), CC BY-SA 4.0",
    "wikitext.txt: the valid and test parts of WikiText-2 (Merity et al. 2016, Pointer Sentinel Mixture "
    "Models; text by the authors of Wikipedia), CC BY-SA 3.0",
    "masc.txt: the Manually Annotated Sub-Corpus (Ide et al. 2010) of the American National Corpus, free for "
    "any use",
    "state_union.txt, inaugural.txt: addresses of presidents of the United States, public domain",
    "The weights themselves: CC BY-SA 4.0",
)
FEATURESTORE = [str(Path(sys.executable).with_name("featurestore"))]
SETTINGS = (
    "--shape demo --epochs 16 --dropout 0.3 --character-dropout 0.1 --precision bfloat16 "
    "--weights-dtype float16 --seed 1"
)

_VOCABULARY = "`vocabulary.txt` (the words it learnt to predict; computing vectors does not need it)"
"""What the card says of a file that is not bundled."""

_HEADING = re.compile(r"^\s*=.*=\s*$")
_SENTENCE_END = re.compile(r'(?<= [.!?])\s+(?=["(]? ?[A-Z<])')


def wikitext_sentences(path: Path) -> list[str]:
    """Return the sentences of a WikiText file, tokens separated by spaces."""
    sentences = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or _HEADING.match(line):
            continue
        joined = re.sub(r" @([-,.])@ ", r"\1", line.strip())
        sentences += [sentence.strip() for sentence in _SENTENCE_END.split(joined)]
    return sentences


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora", type=Path, default=Path("../shared/corpora"))
    parser.add_argument("--work", type=Path, default=Path("runs/elmo-demo"))
    parser.add_argument("--install", action="store_true")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    wikitext = arguments.work / "wikitext.txt"
    sentences = [
        sentence
        for part in ("valid", "test")
        for sentence in wikitext_sentences(arguments.corpora / f"wikitext-2/{part}.txt")
    ]
    wikitext.write_text("".join(f"{sentence}\n" for sentence in sentences), encoding="utf-8")
    texts = [
        arguments.corpora / "ud-ewt/en_ewt-ud-train.conllu",
        *(arguments.corpora / f"pretraining/{name}.txt" for name in ("masc", "state_union", "inaugural")),
        wikitext,
    ]
    command = [
        *FEATURESTORE,
        "pretrain",
        *map(str, texts),
        "--out",
        str(arguments.work / "model"),
        *SETTINGS.split(),
        *(part for line in LICENCES for part in ("--licence", line)),
    ]
    code = subprocess.run(command, check=False).returncode
    if code == 0 and arguments.install:
        install(arguments.work / "model", texts[0])
    sys.exit(code)


def install(model: Path, warm_text: Path) -> None:
    """Make the warm state of a finished model and put the model where `elmo:demo` is looked for."""
    command = [
        *FEATURESTORE,
        "warm-up",
        f"elmo:{model.resolve()}",
        str(warm_text),
        "--device",
        "cpu",
        "--force",
    ]
    subprocess.run(command, check=True)
    BUNDLED_FOLDER.mkdir(exist_ok=True)
    for name in ("options.json", "weights.hdf5", "weights.warm.hdf5"):
        shutil.copy(model / name, BUNDLED_FOLDER / name)
    card, files = (model / "CARD.md").read_text(encoding="utf-8"), f"{_VOCABULARY}."
    if files not in card:
        sys.exit(f"{model / 'CARD.md'} does not list its files as it used to: expected {files!r}")
    card = card.replace(files, "`weights.warm.hdf5` (the state of `--initial-state warm`).")
    (BUNDLED_FOLDER / "CARD.md").write_text(card, encoding="utf-8")
    print(f"{BUNDLED_FOLDER} holds {sum(path.stat().st_size for path in BUNDLED_FOLDER.iterdir()):,} bytes")


if __name__ == "__main__":
    main()
