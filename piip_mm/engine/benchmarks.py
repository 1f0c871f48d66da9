"""What the benchmarks have in common: arguments, measured rows, and the report."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import MMLogger
from rich import box
from rich.console import Console
from rich.table import Table

from piip_mm.analysis.memory import peak_memory
from piip_mm.analysis.timing import Step, alternate, machine

from .launch import add_cfg_options, add_shape, positive

#: Types that are measured by name.
DTYPES = {
    'fp32': torch.float32,
    'bf16': torch.bfloat16,
    'fp16': torch.float16,
}


def add_measuring_arguments(parser: argparse.ArgumentParser) -> None:
    """What is given to the network, where it runs, and where the numbers go."""
    parser.add_argument('--batch-size', type=positive, nargs='+', default=[1])
    parser.add_argument('--dtype', choices=DTYPES, nargs='+', default=['fp32'])
    add_shape(parser, 'img_size')
    devices = ['cpu', *(['cuda'] if torch.cuda.is_available() else [])]
    parser.add_argument(
        '--device',
        choices=devices,
        default=devices[-1],
        help='where to run; cuda only if PyTorch finds a GPU',
    )
    parser.add_argument('--threads', type=positive, help='threads of the CPU')
    parser.add_argument('--repeats', type=positive, default=10)
    parser.add_argument(
        '--out', type=_new_file, metavar='FILE.json', help='write all numbers'
    )
    add_cfg_options(parser)


def _new_file(text: str) -> Path:
    path = Path(text)
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(
            f'{text}: there is no such folder; make it first'
        )
    return path


class Report:
    """Results of a benchmark, printed and written to a file.

    Args:
        args: Arguments of :func:`add_measuring_arguments`; ``threads`` is applied.

    Attributes:
        console: Where to print.
        runs: The results, ready for a JSON file.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        MMLogger.get_instance('benchmark', log_level='WARNING')
        if args.threads:
            torch.set_num_threads(args.threads)
        self.console = Console(
            width=None if sys.stdout.isatty() else 120, highlight=False
        )
        self.runs: list[dict[str, Any]] = []
        self._out: Path | None = args.out
        versions = {name: version(name) for name in ('piip_mm', 'torch', 'mmengine')}
        self._about = dict(
            machine=machine(torch.device(args.device)),
            versions=versions,
            command=shlex.join(['python', *sys.argv]),
        )
        self.console.print(self._about['machine'])
        self.console.print(', '.join(f'{name} {v}' for name, v in versions.items()))

    def write(self) -> None:
        """Write the file, after every run, so that an interruption leaves what was
        measured."""
        if self._out:
            self._out.write_text(json.dumps(dict(self._about, runs=self.runs), indent=2))


def measure_rows(
    steps: Mapping[str, Step], device: torch.device, repeats: int
) -> list[dict[str, Any]]:
    """Time, measured in turns, and memory of steps by name, ready for a JSON file."""
    timings = alternate(list(steps.values()), device, repeats)
    return [
        dict(
            name=name,
            seconds=timing.seconds,
            median=timing.median,
            spread=timing.spread,
            peak_bytes=peak_memory(step, device),
        )
        for (name, step), timing in zip(steps.items(), timings, strict=True)
    ]


def results_table(title: str, caption: str | None, *columns: str) -> Table:
    """An empty table with a column of names and further ones of numbers."""
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column('', no_wrap=True)
    for name in columns:
        table.add_column(name, justify='right', no_wrap=True)
    return table
