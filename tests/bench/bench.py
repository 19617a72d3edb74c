"""Every figure in one go: runs the benchmarks part by part, prints their tables, keeps JSON, draws the plots.

    bin/bench                    everything, about half an hour on two cores
    bin/bench serving encoding   some parts; the others keep the figures they had
    bin/bench --quick            nearly everything in a minute, to see that it runs; its figures mean little
    bin/bench --print            what is kept, as Markdown
    bin/bench --write            the same into README.md beside this, between its marks

A part is a module of a room beside this one that prints one JSON object under --json. Figures are kept in
runs/bench/results.json, each part's with its date, machine, versions and git revision.
"""

from __future__ import annotations

import ast
import json
import os
import re
import resource
import subprocess
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from tests.bench.figures import Table, summary, tables_from
from tests.bench.machine import ROOT, details, machine
from tests.bench.texts import CORPORA
from tests.kit.programs import program

PAGE = ROOT / "tests" / "bench" / "README.md"
UD_EWT = CORPORA / "ud-ewt"


@dataclass(frozen=True)
class Part:
    """A module to run under a name.

    Attributes
    ----------
    name : str
    module : str
        Within tests.bench.
    arguments : tuple of str
        Always given to the module, beside ``--json`` and perhaps ``--quick``.
    peer : bool
        Whether it takes ``--peer``, a Python that has AllenNLP.
    needs : Path, optional
        What it cannot do without; where that is absent the part is left out.
    gpu : bool
        Whether it is left out where there is no CUDA GPU.
    in_quick : bool
        Whether it runs with all others under ``--quick``: a minute of its own is too much there.
    """

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    peer: bool = False
    needs: Path | None = None
    gpu: bool = False
    in_quick: bool = True

    @property
    def obstacle(self) -> str:
        """Why the part cannot run here; empty if it can."""
        if self.needs is not None and not self.needs.exists():
            return f"needs {self.needs}, which is not here"
        if self.gpu and details()["gpu"] is None:
            return "needs a CUDA GPU, which is not here"
        return ""

    @property
    def about(self) -> str:
        """The first line of the module's docstring."""
        source = ROOT.joinpath("tests", "bench", *self.module.split(".")).with_suffix(".py")
        text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
        return text.partition("\n")[0]

    def run(self, *, quick: bool, peer: str | None) -> dict[str, Any]:
        """Return what the module printed, or ``{"error": ...}``."""
        command = program(f"tests.bench.{self.module}", *self.arguments, "--json")
        command += ["--quick"] * quick + (["--peer", peer] if peer and self.peer else [])
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)
        if done.returncode:
            return {"error": f"exit code {done.returncode} of {' '.join(command)}"}
        try:
            values: dict[str, Any] = json.loads(done.stdout)
        except json.JSONDecodeError as error:
            return {"error": f"no JSON ({error}) from {' '.join(command)}: {done.stdout[:200]!r}"}
        return values


PARTS = (
    Part("start-up", "store.start_up"),
    Part("reading", "store.reading"),
    Part("serving", "serving.serve_layouts"),
    Part("loader", "serving.serve_loader"),
    Part("several-stores", "serving.several_stores"),
    Part("windows", "serving.windows"),
    Part("encoding", "encoding.encode", peer=True),
    Part("encoding-curves", "encoding.encode_curves"),
    Part("extraction", "encoding.extract_sizes"),
    Part("cluster", "cluster.actors", in_quick=False),
    Part("writing", "store.write_speed"),
    Part("training", "training.train_epochs", peer=True),
    Part("lstm", "training.lstm_epochs", in_quick=False),
    Part("opening", "training.opening", in_quick=False),
    Part("state", "training.state"),
    Part("index", "store.index_lookups"),
    Part("search", "store.search"),
    Part("profiles", "encoding.profiles"),
    Part("memory", "store.memory_curve"),
    Part("many-shards", "store.many_shards", in_quick=False),
    Part("precision", "encoding.precision", ("--corpus", str(UD_EWT)), needs=UD_EWT, in_quick=False),
    Part("gpu", "encoding.gpu_encode", gpu=True),
)


def cpu_seconds() -> float:
    """Return the processor time that finished child processes took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Results:
    """Figures by part, kept in a file; a part that runs again replaces its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts: dict[str, dict[str, Any]] = {}
        if path.exists():
            self.parts = json.loads(path.read_text(encoding="utf-8"))["parts"]

    def add(self, name: str, entry: dict[str, Any]) -> None:
        """Keep a part's figures, at once."""
        self.parts[name] = entry
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": 1, "parts": self.parts}, indent=1)
        self.path.write_text(text + "\n", encoding="utf-8")

    def tables(self) -> dict[str, list[Table]]:
        """Return the tables by part, in the order of the parts."""
        order = [part.name for part in PARTS if part.name in self.parts]
        return {name: tables_from(name, self.parts[name]["result"]) for name in order}


def filled(page: str, results: Results) -> str:
    """Return a page with the tables of the parts that are kept between their marks; others stay."""
    tables = results.tables()

    def of_part(found: re.Match[str]) -> str:
        name = found["name"]
        if name not in {part.name for part in PARTS}:
            raise click.UsageError(f"{PAGE} has a mark for {name}, which is no part")
        if name not in tables:
            return found[0]
        text = "\n\n".join(table.markdown() for table in tables[name])
        return f"<!-- part {name} -->\n{text}\n\n{on(results.parts[name])}\n<!-- end -->"

    return re.sub(r"<!-- part (?P<name>\S+) -->\n.*?<!-- end -->", of_part, page, flags=re.DOTALL)


def on(entry: dict[str, Any]) -> str:
    """Return one line on when, where and of what an entry's figures are, then its promises."""
    where = entry["machine"]
    changed = f" and {where['changed_files']} changed files" if where["changed_files"] else ""
    lines = [
        f"{entry['date']}, {where['cores']} x {where['processor']}, torch {where['versions']['torch']}, "
        f"revision {where['revision'][:10]}{changed}; {entry['seconds']:.0f} s, "
        f"{entry['cpu_seconds']:.0f} CPU seconds, load before it {entry['load_before']:g}"
        f"{', QUICK: figures mean little' if entry['quick'] else ''}"
    ]
    lines += [f"{name}: {state}" for name, state in entry["result"].get("promises", {}).items()]
    return "\n".join(f"- {line}" for line in lines)


@click.command(help=__doc__.partition("\n")[0], epilog="PARTS are those that --list names; by default all.")
@click.argument("names", metavar="[PARTS]...", nargs=-1)
@click.option("--list", "list_parts", is_flag=True, help="Name the parts and end.")
@click.option("--quick", is_flag=True, help="A minute for nearly all of it; the figures mean little.")
@click.option("--print", "print_only", is_flag=True, help="Print what is kept and end.")
@click.option("--write", is_flag=True, help="Put what is kept into tests/bench/README.md, and end.")
@click.option("--peer", help="Python 3.7 with AllenNLP 0.9.0 (see encode.py); else its recorded figures.")
@click.option("--folder", type=click.Path(path_type=Path), help="Default: runs/bench, or runs/bench-quick.")
@click.option("--plots", type=click.Path(path_type=Path), help="Default: plots/ in the folder.")
def main(
    names: tuple[str, ...],
    list_parts: bool,
    quick: bool,
    print_only: bool,
    write: bool,
    peer: str | None,
    folder: Path | None,
    plots: Path | None,
) -> None:
    if list_parts:
        for part in PARTS:
            click.echo(f"{part.name:16} {part.about}")
        return
    unknown = set(names) - {part.name for part in PARTS}
    if unknown:
        known = ", ".join(part.name for part in PARTS)
        raise click.UsageError(f"there is no part {', '.join(sorted(unknown))}: choose from {known}")
    folder = folder or ROOT / "runs" / ("bench-quick" if quick else "bench")
    results = Results(folder / "results.json")
    if write:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
        return
    failed = []
    if not print_only:
        click.echo(machine(), err=True)
        for part in PARTS:
            if part.name not in names if names else quick and not part.in_quick:
                continue
            click.echo(f"{part.name}: {part.obstacle or part.about}", err=True)
            if part.obstacle:
                continue
            load, busy, started = os.getloadavg()[0], cpu_seconds(), time.perf_counter()
            result = part.run(quick=quick, peer=peer)
            if "error" in result:
                failed.append(part.name)
                click.echo(f"error: {part.name}: {result['error']}", err=True)
                continue
            results.add(
                part.name,
                {
                    "date": datetime.now().astimezone().isoformat(timespec="seconds"),
                    "seconds": round(time.perf_counter() - started, 1),
                    "cpu_seconds": round(cpu_seconds() - busy, 1),
                    "load_before": round(load, 1),
                    "quick": quick,
                    "machine": details(),
                    "result": result,
                },
            )
    tables = results.tables()
    for name, of_part in tables.items():
        if print_only or not names or name in names:
            for table in of_part:
                click.echo(f"\n{table.markdown()}")
            click.echo(f"\n{on(results.parts[name])}")
    click.echo(f"\n{summary(tables).markdown()}")
    if not print_only:
        from tests.bench.plots import draw

        drawn = draw(results.parts, plots or folder / "plots")
        click.echo(f"\nkept: {results.path}; plots: {', '.join(map(str, drawn)) or 'none'}", err=True)
    if failed:
        raise click.ClickException(f"without figures: {', '.join(failed)}")


if __name__ == "__main__":
    main()
