"""Examples that the help of each command ends with."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "": (
        "featurestore extract train.conllu dev.conllu --store features/ewt",
        "featurestore train tagger --store features/ewt --label upos \\\n"
        "    --train train.conllu --dev dev.conllu",
        "featurestore evaluate runs/tagger-upos.h5 test.conllu --store features/ewt",
    ),
    "extract": (
        "featurestore extract train.conllu dev.conllu --store features/ewt",
        "featurestore extract reviews.csv --text-column review --tokenize \\\n"
        "    --store features/reviews --encoder elmo:demo",
        "zcat news.txt.gz | featurestore extract - --store features/news",
    ),
    "plan": ("featurestore plan train.conllu --store features/ewt --label upos",),
    "pretrain": ("featurestore pretrain news.txt.gz forum.txt --out models/mine --epochs 10",),
    "check-encoder": ("featurestore check-encoder mypackage.encoders:Mine",),
    "warm-up": ("featurestore warm-up elmo:./models/mine news.txt.gz",),
    "train": (
        "featurestore train tagger --store features/ewt --label upos \\\n"
        "    --train train.conllu --dev dev.conllu",
        "featurestore train classifier -h",
    ),
    "train tagger": (
        "featurestore train tagger --store features/ewt --label upos \\\n"
        "    --train train.conllu --dev dev.conllu",
    ),
    "train classifier": (
        "featurestore train classifier --store features/polarity --label label \\\n"
        "    --train train.tsv --dev dev.tsv",
    ),
    "evaluate": ("featurestore evaluate runs/tagger-upos.h5 test.conllu --store features/ewt",),
    "predict": (
        "featurestore predict runs/tagger-upos.h5 new.conllu --store features/ewt \\\n"
        "    --output predicted.conll",
    ),
    "info": ("featurestore info features/ewt",),
    "ls": ("featurestore ls features/ewt --contains 'New York' --limit 10",),
    "show": (
        "featurestore show features/ewt 'It rains .'",
        'featurestore show features/ewt --tokens \'["New York", "sleeps"]\'',
    ),
    "stats": ("featurestore stats features/ewt",),
    "report": (
        "featurestore report features/ewt -o ewt.html",
        "featurestore report features/ewt --corpus dev.conllu --label upos",
    ),
    "diff": (
        "featurestore diff features/ewt train.conllu dev.conllu test.conllu",
        "featurestore diff features/ewt train.conllu --unused > unused.txt",
    ),
    "compare": (
        "featurestore compare features/ewt features/ewt-int8",
        "featurestore compare features/old features/new --sample 0 --tolerance 1e-3",
    ),
    "neighbors": (
        "featurestore neighbors features/ewt --word bank --in 'on the river bank'",
        "featurestore neighbors features/ewt --key dd808d --position 1 --json",
    ),
    "why": ("featurestore why features/ewt 'It rains .' --layers top",),
    "export": (
        "featurestore export features/ewt --to parquet -o ewt.parquet",
        "featurestore export features/ewt --to npy -o ewt-train \\\n    --corpus train.conllu --label upos",
    ),
    "import": (
        "featurestore import elmo.hdf5 --from allennlp-hdf5 --corpus lines.txt \\\n"
        "    --store features/old --recipe-note 'ELMo original, all layers, AllenNLP'",
        "featurestore import embeddings_file.h5 --from bio-embeddings \\\n"
        "    --corpus sequences.fasta --store features/seqvec --recipe-note 'SeqVec'",
    ),
    "subset": (
        "featurestore subset features/all --corpus train.conllu -o features/train",
        "featurestore subset features/all --text Berlin -o features/berlin",
    ),
    "copy": ("featurestore copy features/ewt backup/ewt",),
    "recode": ("featurestore recode features/ewt --codec int8 -o features/ewt-int8",),
    "layers": (
        "featurestore layers features/all-layers --layers 1 -o features/layer-1",
        "featurestore layers features/all-layers --average -o features/average",
    ),
    "remove": ("featurestore remove features/all --corpus old.conllu --keep train.conllu",),
    "compact": ("featurestore compact features/ewt --dry-run",),
    "verify": (
        "featurestore verify features/ewt",
        "featurestore verify features/ewt --sample 1000 --encode 20",
    ),
    "repair": ("featurestore repair features/ewt --dry-run",),
    "gc": ("featurestore gc features/ewt --keep-last 1 --older-than 7d --dry-run",),
    "upgrade": ("featurestore upgrade features/ewt",),
    "forget": ("featurestore forget",),
    "completion": (
        "featurestore completion bash > ~/.featurestore-completion.bash",
        "featurestore completion fish > ~/.config/fish/completions/featurestore.fish",
    ),
    "merge": ("featurestore merge machine1/ewt machine2/ewt --into features/ewt",),
}
"""By command, in full; the empty name is the help of ``featurestore`` itself."""


def epilog(command: str) -> str:
    """Return the examples of a command as click shows them below its options, each on lines of its own."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for e in EXAMPLES[command] for line in e.split("\n"))
