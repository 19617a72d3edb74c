"""Makes the bundled model `elmo:demo`: prepares the texts, trains on them, puts the files where they belong.

    .venv/bin/python tests/bench/demo_model.py --corpora ../shared/corpora --work runs/elmo-demo

About an hour on two cores; after a kill the same command goes on. The texts: UD EWT (its training part only),
MASC, presidential addresses, and the valid and test parts of WikiText-2, whose paragraphs are cut into
sentences here and whose `@-@` marks are undone. No development or test part of any corpus that is scored is
among them.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

LICENCES = (
    "en_ewt-ud-train.conllu: Universal Dependencies English Web Treebank, training part, CC BY-SA 4.0",
    "wikitext.txt: WikiText-2 (Salesforce; text of Wikipedia), CC BY-SA 3.0",
    "masc.txt: Manually Annotated Sub-Corpus, American National Corpus, free for any use",
    "state_union.txt, inaugural.txt: addresses of presidents of the United States, public domain",
)
SETTINGS = "--shape demo --epochs 10 --dropout 0.2 --precision bfloat16 --weights-dtype float16 --seed 1"

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
        str(Path(sys.executable).with_name("featurestore")),
        "pretrain",
        *map(str, texts),
        "--out",
        str(arguments.work / "model"),
        *SETTINGS.split(),
        *(part for line in LICENCES for part in ("--licence", line)),
    ]
    sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
