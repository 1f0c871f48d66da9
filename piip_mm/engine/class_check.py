"""Compares the classes of the data sets with the model, the labels and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np
from mmengine.runner import Runner

from piip_mm.checks import shown

from .data_check import LOADERS, walk

#: Parts of a model whose classes are not those of the data set.
_CLASS_FREE = {'backbone', 'neck', 'rpn_head', 'semantic_head'}
_NUM_SHOWN = 5


def check_classes(runner: Runner, task: str) -> None:
    """Build the data sets of a run and check each before the first iteration.

    The corresponding hooks of mmdet and mmpretrain refuse heads whose classes are not
    those of the data set (boundaries, things only), and mmdet's does not check tests.

    Args:
        runner: A runner whose config describes the model.
        task: 'train' (trains and validates) or 'test'.

    Raises:
        ValueError: See :func:`check_dataset`; or if the number of class folders that
            mmpretrain finds is not the number of classes.
    """
    cfg = runner.cfg
    for name in LOADERS[task]:
        if not cfg.get(name):
            continue
        try:
            dataset = getattr(runner, name).dataset
        except AssertionError as error:
            raise ValueError(f'{name}: {error}\n{cfg.get("data_help", "")}') from error
        for leaf in _leaves(dataset):
            # Test-time augmentation wraps the model.
            check_dataset(leaf, cfg.model.get('module', cfg.model), name)


def check_dataset(dataset: Any, model: Any, loader: str) -> None:
    """Compare the classes of a data set with a model and with its labels.

    Label maps are checked when they are loaded, see :func:`check_label_map`. Data sets
    without classes and panoptic ones, whose heads may be for things only, are accepted.

    Args:
        dataset: A built data set; the check of label maps is added to its pipeline.
        model: Config of the model.
        loader: Name of the dataloader, for the message.

    Raises:
        ValueError: If the number of classes of a head differs, or a label in an
            annotation file of mmpretrain is not a class; names both, and the fix. Also
            see :func:`classes_of`.
    """
    classes = classes_of(dataset)
    if classes is None or 'thing_classes' in dataset.metainfo:
        return
    num_classes = len(classes)
    what = (
        f'the data set of {loader} ({type(dataset).__name__}) has {num_classes} classes'
    )
    misfits = {
        f'{path}.num_classes': head['num_classes']
        for path, head in heads_with_classes(model)
        # Auxiliary heads such as mmseg's STDCHead may detect boundaries.
        if head['num_classes'] != num_classes
        and not ('auxiliary_head' in path and head['num_classes'] <= 2)
    }
    if misfits:
        found = ', '.join(f'{path} = {number}' for path, number in misfits.items())
        options = ' '.join(f'{path}={num_classes}' for path in misfits)
        # Classes of ImageNet have several names.
        names = shown((name.split(',')[0] for name in classes), _NUM_SHOWN)
        raise ValueError(
            f'{found}, but {what} ({names}). Set the model to the classes of '
            f'the data, in the config or with --cfg-options {options}; or select the '
            'classes of the data set with its metainfo=dict(classes=...)'
        )
    if hasattr(dataset, 'get_gt_labels') and dataset.ann_file:
        _check_labels(dataset, num_classes, what)
    if hasattr(dataset, 'ignore_index'):
        steps = dataset.pipeline.transforms
        loads = [type(step).__name__ == 'LoadAnnotations' for step in steps]
        if any(loads):
            ignore = dict(ignore_index=dataset.ignore_index)
            check = partial(check_label_map, num_classes=num_classes, **ignore)
            steps.insert(loads.index(True) + 1, check)


def classes_of(dataset: Any) -> list[str] | None:
    """Names of the classes of a built data set; None if it does not know them.

    Raises:
        ValueError: If its classes are a string, of which each letter would be a class.
    """
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if isinstance(classes, str):
        raise ValueError(
            f'metainfo.classes of a {type(dataset).__name__} is the string {classes!r}: '
            f'expected a list of names, such as [{classes!r}], or a file with one name '
            'per line'
        )
    return None if classes is None else [str(name) for name in classes]


def classes_in_checkpoint(checkpoint: Mapping[str, Any]) -> list[str] | None:
    """Names of the classes that a checkpoint of any OpenMMLab version was trained on."""
    meta = checkpoint.get('meta') or {}
    # MMEngine has 'dataset_meta'; older versions put 'CLASSES' next to it or into it.
    fields = {**meta, **(meta.get('dataset_meta') or {})}
    names = {str(key).lower(): value for key, value in fields.items()}.get('classes')
    return None if names is None else [str(name) for name in names]


def compare_classes(trained: list[str], dataset: Any, what: str) -> None:
    """Compare the classes of a checkpoint with those of a data set, if it knows them.

    Args:
        trained: Names from the checkpoint, in the order of the labels.
        dataset: A built data set.
        what: What it is for, for the message.

    Raises:
        ValueError: If names or their order differ; shows both lists from the first
            difference.
    """
    classes = classes_of(dataset)
    if classes is None or classes == trained:
        return
    pairs = enumerate(zip_longest(trained, classes))
    first = next(label for label, (ours, theirs) in pairs if ours != theirs)
    here, there = (
        shown(map(repr, names[first:]), _NUM_SHOWN) or 'none'
        for names in (trained, classes)
    )
    how = 'in another order than' if sorted(classes) == sorted(trained) else 'other than'
    raise ValueError(
        f'the classes of the data set of {what} ({type(dataset).__name__}) are {how} '
        f'those of the checkpoint. From label {first} on,\n'
        f'  the checkpoint ({len(trained)} classes) has {here}\n'
        f'  the data set ({len(classes)} classes) has {there}\n'
        'Use data with the classes of the checkpoint in the same order: set metainfo='
        'dict(classes=...) of the data set, or custom.classes, and for COCO format the '
        'categories of the annotation file. To train on other classes, start from the '
        'checkpoint with load_from instead of resuming'
    )


def heads_with_classes(model: Any) -> Iterator[tuple[str, MutableMapping[str, Any]]]:
    """Path and config of every part of a model's config that has ``num_classes``."""
    for path, part in walk(model, 'model'):
        if part.get('num_classes') is not None and not _CLASS_FREE & {*path.split('.')}:
            yield path, part


def _leaves(dataset: Any) -> Iterator[Any]:
    """The data sets inside wrappers (RepeatDataset, ConcatDataset, ...)."""
    if hasattr(dataset, 'dataset'):
        yield from _leaves(dataset.dataset)
    elif hasattr(dataset, 'datasets'):
        for part in dataset.datasets:
            yield from _leaves(part)
    else:
        yield dataset


def _check_labels(dataset: Any, num_classes: int, what: str) -> None:
    """Find labels of mmpretrain's data sets that are not classes."""
    labels: set[int] = set()
    for index in range(len(dataset)):
        # One label, several, or none if the images are not labelled.
        label = dataset.get_data_info(index).get('gt_label', [])
        labels.update([label] if isinstance(label, int) else label)
    wrong = sorted(int(label) for label in labels if not 0 <= label < num_classes)
    if wrong:
        raise ValueError(
            f'{dataset.ann_file} has the label(s) {wrong[:_NUM_SHOWN]}, but {what}: '
            f'expected 0 to {num_classes - 1}. Correct the file, or the classes in the '
            'metainfo of the data set and num_classes of the model'
        )


def check_label_map(results: dict, num_classes: int, ignore_index: int = 255) -> dict:
    """Return what mmseg has loaded for an image if its label map (H, W) is valid.

    Raises:
        ValueError: If the map has another shape, or a label is neither below
            ``num_classes`` nor ``ignore_index``; names the file.
    """
    labels, path = results['gt_seg_map'], results.get('seg_map_path')
    if labels.ndim != 2:
        raise ValueError(
            f'{path} has shape {labels.shape}: expected a label map (H, W), one channel '
            'with the number of the class of each pixel; colours have to be translated '
            'to numbers first'
        )
    wrong = (labels >= num_classes) & (labels != ignore_index)
    if wrong.any():
        found = np.unique(labels[wrong]).tolist()
        # Labels are then one less than the values in the file.
        reduced = results.get('reduce_zero_label', False)
        raise ValueError(
            f'{path} has the value(s) {[label + reduced for label in found]} in '
            f'{int(wrong.sum())} pixels, which are the labels {found}'
            f'{" (reduce_zero_label)" if reduced else ""}; the data set has '
            f'{num_classes} classes: expected labels below {num_classes}, or '
            f'{ignore_index} to ignore a pixel. Correct the file, or the classes in the '
            'metainfo of the data set and num_classes of the heads'
        )
    return results
