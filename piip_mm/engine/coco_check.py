"""Checks data sets in COCO format before a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import DefaultScope

from piip_mm.checks import shown
from piip_mm.config_types import describes

from .coco_images import check_images
from .coco_report import CocoReport, Findings
from .data_check import (
    EVALUATORS,
    LOADERS,
    is_first_process,
    is_local,
    leaf_datasets,
    walk,
)

_NUM_EXAMPLES = 3


def check_coco(cfg: Config, task: str) -> None:
    """Check the data sets that mmdet reads as COCO: its ``CocoDataset`` and derived ones
    that differ in classes only.

    The log says what is used of each, and warns of what is left out. Of several processes
    only the first one checks; remote files are not checked.

    Args:
        cfg: The config, before test-time augmentation is added.
        task: 'train' (trains and validates) or 'test'.

    Raises:
        ValueError: If the run would fail later, use boxes or classes that do not belong
            to the images, or train on nothing; lists the mistakes in all files.
    """
    if cfg.get('default_scope') != 'mmdet' or not is_first_process():
        return
    mistakes = []
    for loader in LOADERS[task]:
        evaluator = cfg.get(EVALUATORS.get(loader))
        metrics = [part for _, part in walk(evaluator) if part.get('ann_file')]
        for dataset in _coco_datasets(cfg.get(loader)):
            try:
                reports = _reports(dataset, metrics if dataset.test_mode else [])
            except ValueError as error:
                mistakes.append(f'{error} ({loader})')
                continue
            for path, report in reports.items():
                level = logging.WARNING if report.warnings else logging.INFO
                lines = [f'{path} ({loader}): {report}', *_lines(report.warnings)]
                print_log('\n'.join(lines), logger='current', level=level)
                if report.errors:
                    mistakes += [f'{path} ({loader}):', *_lines(report.errors)]
    if mistakes:
        raise ValueError('\n'.join(['the annotations cannot be used', *mistakes]))


def _coco_datasets(loader: Any) -> list[Any]:
    """Data sets of a dataloader that are read as COCO, built but not loaded."""
    # Slow to import, and absent where only mmseg or mmpretrain are used.
    from mmdet.datasets import CocoDataset
    from mmdet.registry import DATASETS

    datasets = []
    with DefaultScope.overwrite_default_scope('mmdet'):
        for leaf in filter(is_local, leaf_datasets(loader)):
            is_remote = '://' in f'{leaf.get("data_root")}{leaf.get("ann_file")}'
            if is_remote or not describes(leaf, DATASETS, CocoDataset):
                continue
            dataset = DATASETS.build(ConfigDict({**leaf, 'lazy_init': True}))
            methods = ('load_data_list', 'parse_data_info')
            if all(getattr(type(dataset), m) is getattr(CocoDataset, m) for m in methods):
                datasets.append(dataset)
    return datasets


def _reports(dataset: Any, metrics: list[Any]) -> dict[str, CocoReport]:
    """Reports about the file of a data set and, if it is another, that of its metrics."""
    metrics = [metric for metric in metrics if not metric.get('format_only')]
    truths = {os.path.realpath(one['ann_file']): one['ann_file'] for one in metrics}
    steps = dataset.pipeline.transforms
    with_masks = any(getattr(step, 'with_mask', False) for step in steps)
    with_masks |= any('segm' in metric.get('metric', '') for metric in metrics)
    evaluated = truths.pop(os.path.realpath(dataset.ann_file), None) is not None
    options = dict(dataset=dataset, with_masks=with_masks)
    report = CocoReport(dataset.ann_file, evaluated=evaluated, **options)
    check_images(report, dataset)
    reports = {dataset.ann_file: report}
    for path in truths.values():
        reports[path] = other = CocoReport(path, evaluated=True, **options)
        if lacking := [ident for ident in report.images if ident not in other.images]:
            other.errors[f'image(s) of {dataset.ann_file} that this file lacks'] = lacking
    return reports


def _lines(findings: Findings) -> Iterator[str]:
    for what, examples in findings.items():
        yield f'  {len(examples)} {what} (e.g. {shown(examples, _NUM_EXAMPLES)})'
