"""What a part of the benchmark hands over: its tables, curves, settings, and which promises were on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import click

from tests.bench.figures import Table
from tests.bench.machine import machine

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass
class Curve:
    """A line of a plot.

    Attributes
    ----------
    name : str
    x, y : list of float
    """

    name: str
    x: list[float]
    y: list[float]


@dataclass
class PartResult:
    """What was measured.

    Attributes
    ----------
    tables : list of Table
    curves : dict of str to list of Curve
        By the plot they belong to.
    promises : dict of str to str
        Which of checksums, fsync and batch invariance were on, in words.
    settings : dict
        How it was measured.
    """

    tables: list[Table] = field(default_factory=list)
    curves: dict[str, list[Curve]] = field(default_factory=dict)
    promises: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def part_options(command: Command) -> Command:
    """Add the options that every part has: ``--quick`` and ``--json``."""
    quick = click.option("--quick", is_flag=True, help="Seconds instead of minutes; the figures mean little.")
    return quick(click.option("--json", "as_json", is_flag=True)(command))


def use_cores(quick: bool) -> None:
    """Let torch use every core; under ``--quick`` one, which is soon done also beside other programs."""
    import torch

    torch.set_num_threads(1 if quick else os.cpu_count() or 1)


def print_part(result: PartResult, as_json: bool) -> None:
    """Print a part's result, as one JSON object or as tables."""
    if as_json:
        print(json.dumps(result.to_dict()))
        return
    print(machine())
    for table in result.tables:
        print(f"\n{table.markdown()}")
