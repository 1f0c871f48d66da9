"""Run the tests with every combination of Python, PyTorch and OpenMMLab packages.

Every combination gets an environment of its own, into which this checkout is installed as
users install it. Results are stored one by one, so that an interrupted run continues with
the next combination; ``--again`` runs them again. The table of docs/installation.md is
printed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = Path.home() / '.cache/piip_mm/matrix'

UPSTREAM = ('.[all]',)
ONEDL = (
    '.',
    'onedl-mmengine',
    'onedl-mmcv',
    'onedl-mmdetection',
    'onedl-mmsegmentation',
    'onedl-mmpretrain',
    'ftfy',
    'regex',
)


@dataclass(frozen=True)
class Combination:
    """What an environment is made of.

    Attributes:
        python: Version of the interpreter.
        torch: Requirement of PyTorch; without a version, the newest one that installs.
        stack: 'upstream' or 'OneDL', the packages of OpenMMLab or of their fork.
    """

    python: str
    torch: str
    stack: str = 'upstream'

    @property
    def name(self) -> str:
        """Name of the folder of the environment."""
        return re.sub(r'[^\w.]+', '-', f'py{self.python}-{self.torch}-{self.stack}')


#: The oldest PyTorch, that of requirements/, and the newest.
OLDEST, PINNED, NEWEST = 'torch==2.6.0', 'torch==2.13.0', 'torch'

#: Every Python and every PyTorch at least once, and the fork.
COMBINATIONS = [
    Combination('3.10', OLDEST),
    Combination('3.11', PINNED),
    Combination('3.12', NEWEST),
    Combination('3.13', NEWEST),
    Combination('3.11', NEWEST, 'OneDL'),
]


@dataclass
class Result:
    """Outcome of a combination."""

    python: str
    torch: str
    stack: str
    outcome: str
    seconds: int
    day: str


def interpreter(version: str) -> str | None:
    """A Python of this version: on the path, or of pyenv."""
    found = shutil.which(f'python{version}')
    pyenv = sorted(Path.home().glob(f'.pyenv/versions/{version}.*/bin/python'))
    return str(pyenv[-1]) if pyenv else found


def run_combination(combination: Combination, tests: Sequence[str]) -> Result:
    """Make the environment and run the tests in it; the log is next to it."""
    started = time.monotonic()
    folder = CACHE / combination.name
    python = interpreter(combination.python)
    versions = combination.torch
    if python is None:
        outcome = f'no Python {combination.python} here'
    else:
        log = CACHE / f'{combination.name}.log'
        outcome = _in_environment(python, folder, combination, tests, log)
        if (folder / 'bin/python').exists():
            versions = _torch_version(folder) or combination.torch
    return Result(
        python=combination.python,
        torch=versions,
        stack=combination.stack,
        outcome=outcome,
        seconds=round(time.monotonic() - started),
        day=date.today().isoformat(),
    )


def _in_environment(
    python: str, folder: Path, combination: Combination, tests: Sequence[str], log: Path
) -> str:
    """Outcome of the steps, of which the first that fails is the last one."""
    shutil.rmtree(folder, ignore_errors=True)
    own = str(folder / 'bin/python')
    pip = [own, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check']
    index = os.environ.get('TORCH_INDEX_URL')
    packages = UPSTREAM if combination.stack == 'upstream' else ONEDL
    steps = {
        'making the environment': [python, '-m', 'venv', str(folder)],
        'installing PyTorch': [
            *pip, combination.torch, 'torchvision',
            *(['--index-url', index] if index else []),
        ],
        'installing the packages': [*pip, *packages],
        'installing pytest': [*pip, 'pytest', 'pytest-xdist', 'wheel'],
        'the tests': [
            own, '-m', 'pytest', '-q', '-p', 'no:cacheprovider',
            '--numprocesses', 'auto', '--maxprocesses', '4', '--dist', 'loadfile', *tests,
        ],
    }  # fmt: skip
    with log.open('w') as stream:
        for name, command in steps.items():
            print(f'   {name}', flush=True)
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=os.environ | {'OMP_NUM_THREADS': '1'},
                stdout=stream,
                stderr=stream,
            )
            if done.returncode and name != 'the tests':
                return f'{name} failed'
    last = log.read_text().rstrip().splitlines()[-1]
    return re.sub(r' in [\d.]+s.*', '', last).strip('= ')


def _torch_version(folder: Path) -> str:
    code = 'from importlib.metadata import version; print(version("torch"))'
    done = subprocess.run(
        [folder / 'bin/python', '-c', code], capture_output=True, text=True
    )
    return f'torch {done.stdout.strip()}' if done.returncode == 0 else ''


def table(results: Sequence[Result]) -> str:
    """The results in Markdown."""
    rows = [
        f'| {r.python} | {r.torch} | {r.stack} | {r.outcome} | {r.day} |' for r in results
    ]
    head = ['| Python | PyTorch | packages | tests | date |', '|---|---|---|---|---|']
    return '\n'.join([*head, *rows])


def main() -> None:
    """Run what has no result yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--again', action='store_true', help='forget earlier results')
    parser.add_argument('--only', help='part of the name of combinations to run')
    parser.add_argument('--keep', action='store_true', help='keep the environments')
    parser.add_argument('tests', nargs='*', default=['tests'], help='for pytest')
    args = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    results = []
    for combination in COMBINATIONS:
        stored = CACHE / f'{combination.name}.json'
        chosen = args.only is None or args.only in combination.name
        if chosen and (args.again or not stored.exists()):
            print(f'== {combination.name}', flush=True)
            result = run_combination(combination, args.tests)
            stored.write_text(json.dumps(asdict(result)))
            print(f'   {result.outcome}, {result.seconds} s', flush=True)
            if not args.keep:
                shutil.rmtree(CACHE / combination.name, ignore_errors=True)
        if stored.exists():
            results.append(Result(**json.loads(stored.read_text())))
    print(table(results))


if __name__ == '__main__':
    sys.exit(main())
