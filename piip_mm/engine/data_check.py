"""Finds missing files before anything long runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from piip_mm.weights.source import where_to_get

#: Dataloaders and evaluators that are in use where a run has these parts.
LOADERS = {
    'train': ('train_dataloader', 'val_dataloader'),
    'test': ('test_dataloader',),
}
_EVALUATORS = {'train': ('val_evaluator',), 'test': ('test_evaluator',)}

#: mmpretrain's data sets that may do without an annotation file: a folder is a class.
_CLASS_FOLDERS = ('CustomDataset', 'ImageNet', 'ImageNet21k')


def check_data(cfg: Config, task: str) -> None:
    """Raise an error that lists everything on disk that a run will miss.

    Checked are the annotation files and directories of the data sets (wrapped ones too),
    the annotation files of the evaluators, pretrained weights of the model if it is
    going to be trained, and ``load_from``. Remote files (URLs, other storage backends)
    are not.

    Args:
        cfg: The config. Its top-level ``data_help``, if there is one, is part of the
            message: how to get the data.
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


def _is_missing(path: Path) -> bool:
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def find_missing(cfg: Config, task: str) -> dict[str, str]:
    """Paths that do not exist or are empty folders, and what each is for; see
    :func:`check_data`."""
    if task not in LOADERS:
        raise ValueError(f'unknown task {task!r}; choose one of {sorted(LOADERS)}')
    missing: dict[str, str] = {}
    for path, what in _expected_paths(cfg, task):
        if '://' not in path and _is_missing(Path(path).expanduser()):
            missing.setdefault(path, what)
    return missing


def leaf_datasets(dataset: Any) -> Iterator[Any]:
    """Configs of the data sets inside wrappers (RepeatDataset, ConcatDataset, ...)."""
    if 'dataset' in dataset:
        yield from leaf_datasets(dataset['dataset'])
    elif 'datasets' in dataset:
        for part in dataset['datasets']:
            yield from leaf_datasets(part)
    else:
        yield dataset


def metric_configs(evaluator: Any) -> Iterator[Any]:
    """Configs of the metrics of an evaluator, which may be one, a list, or wrapped."""
    if isinstance(evaluator, Mapping):
        metrics = evaluator.get('metrics')
        if metrics is None:
            yield evaluator
        else:
            yield from metric_configs(metrics)
    else:
        for part in evaluator or ():
            yield from metric_configs(part)


def _expected_paths(cfg: Config, task: str) -> Iterator[tuple[str, str]]:
    for name in LOADERS[task]:
        if cfg.get(name):
            for dataset in leaf_datasets(cfg[name]['dataset']):
                for path, what in _dataset_paths(dataset):
                    yield path, f'{what} of {name}'
    for name in _EVALUATORS[task]:
        for metric in metric_configs(cfg.get(name)):
            if metric.get('ann_file') and _is_local(metric):
                yield metric['ann_file'], f'annotation file of {name}'
    if task == 'train':
        for path in pretrained_paths(cfg.model):
            yield path, 'pretrained weights (init_cfg of the model)'
    if cfg.get('load_from'):
        yield cfg.load_from, 'checkpoint to load'


def pretrained_parts(node: Any) -> Iterator[Any]:
    """Configs below a node that have an ``init_cfg`` of type 'Pretrained'."""
    if isinstance(node, Mapping):
        if any(i.get('type') == 'Pretrained' for i in _as_list(node.get('init_cfg'))):
            yield node
        for key, child in node.items():
            if key != 'init_cfg':
                yield from pretrained_parts(child)
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for child in node:
            yield from pretrained_parts(child)


def pretrained_paths(model: Any) -> Iterator[str]:
    """Checkpoints of every ``init_cfg`` of type 'Pretrained' in a model's config.

    Raises:
        ValueError: If one names no checkpoint.
    """
    for part in pretrained_parts(model):
        for init in _as_list(part['init_cfg']):
            if init.get('type') == 'Pretrained':
                if not init.get('checkpoint'):
                    raise ValueError(
                        f'init_cfg {dict(init)} of {part.get("type")!r} has no '
                        'checkpoint; set one, or init_cfg=None'
                    )
                yield init['checkpoint']


def _as_list(init_cfg: Any) -> list[Any]:
    if not init_cfg:
        return []
    return [init_cfg] if isinstance(init_cfg, Mapping) else list(init_cfg)


def _dataset_paths(dataset: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not _is_local(dataset):
        return
    root = dataset.get('data_root') or ''
    if dataset.get('ann_file'):
        yield _join(root, dataset['ann_file']), 'annotation file'
    for key, prefix in _prefixes(dataset).items():
        if root or prefix:
            yield _join(root, prefix), f'directory ({key})'


def _prefixes(dataset: Mapping[str, Any]) -> Mapping[str, str]:
    prefixes = dataset.get('data_prefix') or {}
    if isinstance(prefixes, str):
        return {'img': prefixes}
    if not prefixes and _has_class_folders(dataset):
        return {'img': dataset.get('split') or ''}
    return prefixes


def _has_class_folders(dataset: Mapping[str, Any]) -> bool:
    return str(dataset.get('type')).rpartition('.')[-1] in _CLASS_FOLDERS


def class_folder(dataset: Mapping[str, Any]) -> str | None:
    """The directory whose folders are the classes; None if labels come from a file."""
    root, split = dataset.get('data_root') or '', dataset.get('split')
    if (
        not _has_class_folders(dataset)
        or not _is_local(dataset)
        or dataset.get('ann_file')
        or dataset.get('with_label') is False
        # mmpretrain takes this file where there is one.
        or (split and Path(root, 'meta', f'{split}.txt').exists())
    ):
        return None
    return _join(root, next(iter(_prefixes(dataset).values())))


def _join(root: str, path: str) -> str:
    # pathlib would make one slash of a URL's two.
    return os.path.join(root, path) if '://' in root + path else str(Path(root) / path)


def _is_local(cfg: Mapping[str, Any]) -> bool:
    backend_args = cfg.get('backend_args') or {}
    return backend_args.get('backend', 'local') == 'local'
