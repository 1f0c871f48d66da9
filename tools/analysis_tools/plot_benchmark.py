"""Plots latency against multiply-adds, from the files of ``benchmark.py --out``."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from piip_mm.engine.launch import user_errors

MARKERS = 'osD^vP*X<>hd'

#: What distinguishes the runs of a benchmark, besides the size of the input.
SETTINGS = ('part', 'mode', 'batch_size', 'dtype')

#: GFLOPs, milliseconds and size in words.
Point = tuple[float, float, str]


def parse_args() -> argparse.Namespace:
    """Arguments."""
    parser = argparse.ArgumentParser(
        description='Latency against multiply-adds of a step, with logarithmic axes',
        epilog='benchmark.py --scale measures several sizes of the input in one run.',
    )
    parser.add_argument('files', nargs='+', metavar='FILE.json')
    parser.add_argument('--out', required=True, metavar='FILE.png')
    return parser.parse_args()


def main() -> None:
    """Read and plot."""
    args = parse_args()
    with user_errors():
        reports = {path: read_report(path) for path in args.files}
        figure = plot(read_lines(reports), captions(reports.values()))
        figure.savefig(args.out, dpi=150)


def read_report(path: str) -> dict[str, Any]:
    """The content of a file.

    Raises:
        ValueError: If it is not one of ``benchmark.py``.
    """
    try:
        report = json.loads(Path(path).read_text())
        list(points_of(report))
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f'{path} is not a file that benchmark.py --out has written '
            f'({type(error).__name__}: {error}); measure again'
        ) from error
    return report


def points_of(report: dict[str, Any]) -> Iterator[tuple[str, tuple, Point]]:
    """Name with the number of branches, settings and place of each row, but for those
    whose multiply-adds are not known."""
    for run in report['runs']:
        settings = tuple(run[name] for name in SETTINGS)
        for row in run['rows']:
            if row['multiply_adds'] is None:
                continue
            branches = row['branches']
            label = f'{row["name"]} ({branches} branch{"es" if branches > 1 else ""})'
            height, width = row['shape']
            size = str(height) if height == width else f'{height} x {width}'
            yield label, settings, (row['multiply_adds'] / 1e9, row['median'] * 1e3, size)


def read_lines(reports: dict[str, dict[str, Any]]) -> dict[str, list[Point]]:
    """Points by label, which has the settings that are not the same everywhere.

    Raises:
        ValueError: If there are none.
    """
    found = [point for report in reports.values() for point in points_of(report)]
    if not found:
        raise ValueError(
            f'{", ".join(reports)}: no row has multiply-adds; benchmark.py does not '
            'count them with --part model'
        )
    columns = zip(*(settings for _, settings, _ in found), strict=True)
    varying = [len(set(values)) > 1 for values in columns]
    lines = defaultdict(list)
    for label, settings, point in found:
        words = [
            f'{name.replace("_", " ")} {value}'
            for name, value, varies in zip(SETTINGS, settings, varying, strict=True)
            if varies
        ]
        lines[', '.join([label, *words])].append(point)
    return {label: sorted(points) for label, points in lines.items()}


def captions(reports: Sequence[dict[str, Any]]) -> list[str]:
    """Machine, versions and command of each report, in lines of limited length."""
    texts = []
    for report in reports:
        versions = ', '.join(f'{name} {v}' for name, v in report['versions'].items())
        texts += [f'{report["machine"]}; {versions}', report['command']]
    # What is the same in all files is said once.
    return [line for text in dict.fromkeys(texts) for line in textwrap.wrap(text, 120)]


def plot(lines: dict[str, list[Point]], caption: Sequence[str]) -> Figure:
    """The figure."""
    bottom = 0.18 * len(caption) + 0.2
    figure = Figure(figsize=(9, 6 + bottom), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for (label, points), marker in zip(lines.items(), cycle(MARKERS)):
        gflops, milliseconds, _ = zip(*points, strict=True)
        axes.plot(gflops, milliseconds, marker=marker, label=label)
        for x, y, size in points:
            axes.annotate(
                size, (x, y), xytext=(4, -9), textcoords='offset points', fontsize=7
            )
    axes.set(xscale='log', yscale='log')
    axes.set(xlabel='GFLOPs of a step (multiply-adds)', ylabel='ms, median')
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter('{x:g}')
        axis.set_minor_formatter('{x:g}')
        axis.set_tick_params(which='both', labelsize=7)
    axes.grid(which='both', alpha=0.3)
    axes.legend(fontsize=8)
    figure.supxlabel('\n'.join(caption), fontsize=7, x=0.01, ha='left')
    return figure


if __name__ == '__main__':
    main()
