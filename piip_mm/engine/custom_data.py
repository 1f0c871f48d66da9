"""One place in a config for a custom data set in COCO format.

.. code-block:: python

    custom = dict(
        data_root='data/custom/',            # everything below is relative to it
        train_ann='annotations/train.json',
        val_ann='annotations/val.json',
        train_img='images/',
        val_img='images/',
        classes=None)                        # None: all categories of train_ann

The tools spread these values over the config, so each is given once, in a file or as
``--cfg-options custom.data_root=... custom.classes=cat,dog``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from piip_mm.checks import check_mapping

from .class_check import heads_with_classes
from .coco_file import read_coco
from .data_check import check_data, leaf_datasets, walk

_REQUIRED = ('data_root', 'train_ann', 'val_ann')
_DEFAULTS = {'train_img': 'images/', 'val_img': 'images/', 'classes': None}


def expand_custom_data(cfg: Config) -> None:
    """Spread the top-level ``custom`` over dataloaders, evaluators and heads, in place.

    A config without ``custom`` is not changed. Classes are sorted into the order of the
    annotation files, in which mmdet numbers them, and are written back to
    ``cfg.custom.classes``, so that testing with a saved config does not need the training
    data.

    Args:
        cfg: The config, after ``--cfg-options``.

    Raises:
        FileNotFoundError: If an annotation file does not exist.
        ValueError: If ``custom`` has unknown fields or lacks required ones, an annotation
            file has no images, annotations or categories, or the classes do not fit.
    """
    if cfg.get('custom') is None:
        return
    check_mapping('custom', cfg.custom)
    custom = {**_DEFAULTS, **cfg.custom}
    unknown = sorted(set(custom) - set(_DEFAULTS) - set(_REQUIRED))
    absent = [key for key in _REQUIRED if not custom.get(key)]
    if unknown or absent:
        raise ValueError(
            f'custom: unknown fields {unknown}, fields without a value {absent}; '
            f'expected {", ".join((*_REQUIRED, *_DEFAULTS))}'
        )
    for key in (*_REQUIRED, 'train_img', 'val_img'):
        if not isinstance(custom[key], (str, Path)):
            raise ValueError(f'custom.{key}={custom[key]!r}: expected a path')
    root = Path(custom['data_root'])
    datasets = []
    for name, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        leaves = leaf_datasets(cfg.get(f'{name}_dataloader'))
        if len(leaves) > 1:
            raise ValueError(
                f'custom describes one data set, but {name}_dataloader joins '
                f'{len(leaves)}; set their paths in the config and remove custom'
            )
        for dataset in leaves:
            dataset['data_root'] = custom['data_root']
            dataset['ann_file'] = custom[f'{split}_ann']
            dataset['data_prefix'] = {'img': custom[f'{split}_img']}
            datasets.append(dataset)
        for _, metric in walk(cfg.get(f'{name}_evaluator')):
            if 'ann_file' in metric:
                metric['ann_file'] = str(root / custom[f'{split}_ann'])

    train_ann, val_ann = root / custom['train_ann'], root / custom['val_ann']
    if not val_ann.exists() or (custom['classes'] is None and not train_ann.exists()):
        check_data(cfg, 'train')
    classes = _resolve_classes(custom['classes'], train_ann, val_ann)
    cfg.custom = {**custom, 'classes': classes}
    for dataset in datasets:
        # A palette of the base config would be that of its own classes.
        dataset['metainfo'] = {'classes': classes}
    heads = [head for _, head in heads_with_classes(cfg.model)]
    if not heads:
        raise ValueError("custom: the model has no head with 'num_classes' to set")
    for head in heads:
        head['num_classes'] = len(classes)
    print_log(f'custom data in {root}: classes {classes}', logger='current')


def _resolve_classes(given: Any, train_ann: Path, val_ann: Path) -> list[str]:
    """The classes, in the order of the files."""
    # Testing a trained model does not need the training data.
    source = train_ann if train_ann.exists() else val_ann
    categories = _categories(source)
    wanted = categories if given is None else _as_names(given)
    lacking = [name for name in wanted if name not in categories]
    if lacking or not wanted or len(set(wanted)) < len(wanted):
        raise ValueError(
            f'custom.classes {wanted}: expected different names among the categories '
            f'{categories} of {source}' + (f'; not there: {lacking}' if lacking else '')
        )
    classes = [name for name in categories if name in wanted]
    val_classes = [name for name in _categories(val_ann) if name in classes]
    if val_classes != classes:
        raise ValueError(
            f'{val_ann} has the classes {val_classes}, {source} has {classes}; list the '
            'same categories in the same order in both files'
        )
    return classes


def _as_names(given: Any) -> list[str]:
    """Names as given on the command line: a single one is a string, a number an int."""
    names = given.split(',') if isinstance(given, str) else given
    names = names if isinstance(names, (list, tuple)) else [names]
    return [str(name).strip() for name in names]


def _categories(ann_file: Path) -> list[str]:
    """Names of the categories of a COCO annotation file, in its order."""
    return [category['name'] for category in read_coco(ann_file)['categories']]
