"""Finds missing files before anything expensive starts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from piip_mm.config_types import base_names, resolve_type
from piip_mm.weights.pretrained import is_pretrained
from piip_mm.weights.source import check_location, where_to_get

#: Dataloaders of a run that trains (and validates) or tests.
LOADERS = {
    'train': ('train_dataloader', 'val_dataloader'),
    'test': ('test_dataloader',),
}
#: The evaluators of those that are evaluated.
EVALUATORS = {'val_dataloader': 'val_evaluator', 'test_dataloader': 'test_evaluator'}


def check_data(cfg: Config, task: str) -> None:
    """Raise an error that lists all files and directories that a run will not find.

    The check covers annotation files and directories of the data sets (also of wrapped
    ones) and of the evaluators, pretrained weights of the model if it is going to be
    trained, and ``load_from``, but no remote files (URLs, other storage backends).

    Args:
        cfg: The config. Its top-level ``data_help``, if any, is part of the message and
            says how to get the data.
        task: 'train' (trains and validates) or 'test'.

    Raises:
        FileNotFoundError: If anything is missing; names every path, relative and
            absolute.
    """
    missing = find_missing(cfg, task)
    if not missing:
        return
    lines = [f'{len(missing)} path(s) that this run needs do not exist or are empty:']
    for path, what in missing.items():
        lines.append(f'  {path}')
        lines.append(f'      {what}; expected at {Path(path).expanduser().absolute()}')
        if what.startswith('pretrained'):
            lines.append(f'      {where_to_get(path)}')
    if any('dataloader' in what or 'evaluator' in what for what in missing.values()):
        lines.append(
            cfg.get('data_help')
            or "Correct 'data_root', 'ann_file' and 'data_prefix' in the config or "
            'with --cfg-options.'
        )
    lines.append(f'Relative paths start at the current directory, {Path.cwd()}.')
    raise FileNotFoundError('\n'.join(lines))


def find_missing(cfg: Config, task: str) -> dict[str, str]:
    """Paths that do not exist or are empty folders, and what each is for; see
    :func:`check_data`."""
    if task not in LOADERS:
        raise ValueError(f'unknown task {task!r}; choose one of {sorted(LOADERS)}')
    missing: dict[str, str] = {}
    for path, what in _expected_paths(cfg, task):
        place = Path(path).expanduser()
        is_empty = place.is_dir() and not any(place.iterdir())
        if '://' not in path and (is_empty or not place.exists()):
            missing.setdefault(path, what)
    return missing


def is_first_process() -> bool:
    """Whether this is the first of several processes, which may not be joined yet."""
    return os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0'


def walk(node: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Every dict at and below a node of a config, with its dotted path."""
    children: Any = enumerate(node) if isinstance(node, (list, tuple)) else ()
    if isinstance(node, Mapping):
        yield path, node
        children = node.items()
    for key, child in children:
        yield from walk(child, f'{path}.{key}')


def is_local(part: Mapping[str, Any]) -> bool:
    """Whether the config of a data set or a metric says nothing of remote storage."""
    return (part.get('backend_args') or {}).get('backend', 'local') == 'local'


def leaf_datasets(loader: Any) -> list[Any]:
    """Configs of the data sets of a dataloader, inside any wrappers."""
    parts = [part for _, part in walk(loader)]
    return [part for part in parts if 'pipeline' in part and 'dataset' not in part]


def pretrained_parts(model: Any) -> list[tuple[str, Any, Any]]:
    """Path, part of the model, and entry of its ``init_cfg``, of all entries in a model's
    config that load pretrained weights."""
    return [
        (place, part, entry)
        for path, part in walk(model, 'model')
        for place, entry in walk(part.get('init_cfg'), f'{path}.init_cfg')
        if is_pretrained(entry)
    ]


def pretrained_paths(model: Any) -> Iterator[str]:
    """Checkpoints of the pretrained weights in a model's config.

    Raises:
        ValueError: If one names no checkpoint.
    """
    for path, _, entry in pretrained_parts(model):
        yield check_location(f'{path}.checkpoint', entry.get('checkpoint'))


def _expected_paths(cfg: Config, task: str) -> Iterator[tuple[str, str]]:
    loaders = LOADERS[task]
    for name in (*loaders, *(EVALUATORS[key] for key in loaders if key in EVALUATORS)):
        for _, part in walk(cfg.get(name)):
            for path, what in _paths_of(part, cfg.get('default_scope')):
                yield path, f'{what} of {name}'
    if task == 'train':
        for path in pretrained_paths(cfg.model):
            yield path, 'pretrained weights (init_cfg of the model)'
    if cfg.get('load_from'):
        yield cfg.load_from, 'checkpoint to load'


def _paths_of(part: Mapping[str, Any], scope: str | None) -> Iterator[tuple[str, str]]:
    """Paths in the config of a data set or a metric; other configs have none."""
    if not is_local(part):
        return
    root = part.get('data_root') or ''
    if part.get('ann_file'):
        yield _join(root, part['ann_file']), 'annotation file'
    prefixes = part.get('data_prefix') or {}
    split = part.get('split') or ''
    if not prefixes and (root or split):
        # mmpretrain's data sets in which a folder is a class.
        kind = resolve_type(part, DATASETS, scope)
        if 'CustomDataset' in base_names(kind, 'mmpretrain'):
            prefixes = split
    if isinstance(prefixes, str):
        prefixes = {'img': prefixes}
    for key, prefix in prefixes.items():
        if root or prefix:
            yield _join(root, prefix), f'directory ({key})'


def _join(root: str, path: str) -> str:
    # pathlib would replace the two slashes of a URL by one.
    return os.path.join(root, path) if '://' in root + path else str(Path(root) / path)
