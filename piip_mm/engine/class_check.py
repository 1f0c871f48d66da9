"""Finds classes that do not fit: of data set and model, and in label maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS, TRANSFORMS

from .data_check import LOADERS, class_folder, leaf_datasets

#: Parts of a model whose number of classes is none of the data set's.
_CLASS_FREE = ('backbone', 'neck', 'rpn_head', 'semantic_head')
_NAMES_SHOWN = 5


def check_classes(cfg: Config, task: str) -> None:
    """Compare the classes of the data sets with ``num_classes`` of the model.

    Data sets that do not tell their classes are left out. For segmentation every label
    map is checked as well when it is loaded, see :class:`CheckLabelMap`.

    Args:
        cfg: The config; its segmentation pipelines are extended in place.
        task: 'train' (trains and validates) or 'test'.

    Raises:
        ValueError: If a data set has another number of classes than a head, or than its
            folders; names both numbers.
    """
    scope = cfg.get('default_scope')
    for name in LOADERS[task]:
        if not cfg.get(name):
            continue
        for dataset in leaf_datasets(cfg[name]['dataset']):
            classes = _classes_of(dataset, scope)
            if classes is None:
                continue
            _check_folders(dataset, classes, name)
            _check_heads(cfg.model, dataset, classes, name)
            if scope == 'mmseg':
                _add_label_check(dataset, len(classes))


def heads_with_classes(
    node: Any, path: str = 'model'
) -> Iterator[tuple[str, MutableMapping[str, Any]]]:
    """Path and config of every part below ``node`` that has ``num_classes``."""
    if isinstance(node, MutableMapping):
        if node.get('num_classes') is not None:
            yield path, node
        for key, child in node.items():
            if key not in _CLASS_FREE:
                yield from heads_with_classes(child, f'{path}.{key}')
    elif isinstance(node, (list, tuple)):
        for index, child in enumerate(node):
            yield from heads_with_classes(child, f'{path}.{index}')


def _classes_of(dataset: Mapping[str, Any], scope: str | None) -> list[str] | None:
    """Names of the classes: from the config, the data set's type, or its folders."""
    classes = (dataset.get('metainfo') or {}).get('classes') or dataset.get('classes')
    if classes is None:
        with DATASETS.switch_scope_and_registry(scope) as registry:
            metainfo = getattr(registry.get(dataset['type']), 'METAINFO', {})
        if 'thing_classes' in metainfo:
            return None  # panoptic: some heads know the things only
        classes = metainfo.get('classes')
    if isinstance(classes, str):
        classes = list_from_file(classes)
    return _folders(dataset) if classes is None else list(classes)


def _folders(dataset: Mapping[str, Any]) -> list[str] | None:
    folder = class_folder(dataset)
    if folder is None or not Path(folder).is_dir():
        return None
    return sorted(entry.name for entry in Path(folder).iterdir() if entry.is_dir())


def _check_folders(dataset: Mapping[str, Any], classes: list[str], loader: str) -> None:
    folders = _folders(dataset)
    if folders is not None and len(folders) != len(classes):
        raise ValueError(
            f'{class_folder(dataset)} of {loader} has {len(folders)} folders '
            f'({_some(folders)}), expected one for each of the {len(classes)} classes '
            f'({_some(classes)}): sort the images into such folders, or give '
            "metainfo=dict(classes=...) or an 'ann_file' with lines 'IMAGE LABEL'"
        )


def _check_heads(
    model: Any, dataset: Mapping[str, Any], classes: list[str], loader: str
) -> None:
    misfits = {
        f'{path}.num_classes': head['num_classes']
        for path, head in heads_with_classes(model)
        if head['num_classes'] != len(classes)
    }
    if misfits:
        found = ', '.join(f'{path} = {number}' for path, number in misfits.items())
        options = ' '.join(f'{path}={len(classes)}' for path in misfits)
        raise ValueError(
            f'{found}, but the data set of {loader} ({dataset["type"]}) has '
            f'{len(classes)} classes ({_some(classes)}). Set the model to the classes of '
            f'the data, in the config or with --cfg-options {options}; or select the '
            'classes of the data set with its metainfo=dict(classes=...)'
        )


def _some(names: list[str]) -> str:
    # ImageNet gives several names to a class.
    shown = ', '.join(name.split(',')[0] for name in names[:_NAMES_SHOWN])
    return f'{shown}, ...' if len(names) > _NAMES_SHOWN else shown or 'none'


def _add_label_check(dataset: MutableMapping[str, Any], num_classes: int) -> None:
    """Check label maps right after each step that loads them."""
    check = dict(
        type='CheckLabelMap',
        num_classes=num_classes,
        ignore_index=dataset.get('ignore_index', 255),
    )
    pipeline = []
    for step in dataset.get('pipeline') or ():
        pipeline.append(step)
        if str(step['type']).endswith('LoadAnnotations'):
            pipeline.append(check)
    dataset['pipeline'] = pipeline


@TRANSFORMS.register_module()
class CheckLabelMap(BaseTransform):
    """Stops at a label map whose labels are no classes.

    A loss on a GPU would fail later, without naming the file.

    Args:
        num_classes: Labels lie in [0, num_classes).
        ignore_index: The label of pixels without a class.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def transform(self, results: dict) -> dict:
        """Pass on ``results`` with a ``gt_seg_map`` (H, W) that is sound.

        Raises:
            ValueError: If it has another shape, or labels that are no classes.
        """
        labels = results['gt_seg_map']
        path = results.get('seg_map_path')
        if labels.ndim != 2:
            raise ValueError(
                f'{path} has shape {labels.shape}: expected a label map (H, W), one '
                'channel with the number of the class of each pixel; colours have to be '
                'translated to numbers first'
            )
        wrong = (labels >= self.num_classes) & (labels != self.ignore_index)
        if wrong.any():
            found = np.unique(labels[wrong]).tolist()
            # Labels are one less than what lies in the file.
            reduced = results.get('reduce_zero_label', False)
            values = [label + 1 for label in found] if reduced else found
            raise ValueError(
                f'{path} has the value(s) {values} in {int(wrong.sum())} pixels, which '
                f'are the labels {found}'
                + (' (reduce_zero_label)' if reduced else '')
                + f'; the data set has {self.num_classes} classes: expected labels '
                f'below {self.num_classes}, or {self.ignore_index} to ignore a pixel. '
                'Correct the file, or the classes in the metainfo of the data set and '
                'num_classes of the heads'
            )
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(num_classes={self.num_classes}, '
            f'ignore_index={self.ignore_index})'
        )
