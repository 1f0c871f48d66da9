"""The forms in which the shapes are written: one for each task.

A layout turns numbered scenes into the files of one split; see ``LAYOUTS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmcv
import mmengine
import numpy as np
from pycocotools import mask as mask_utils

from .scene import SHAPES_METAINFO, Instance

Scenes = Iterable[tuple[int, np.ndarray, list[Instance]]]
"""Number, image (H, W, 3) and instances of each scene."""

SEMANTIC_METAINFO = dict(
    classes=('background', *SHAPES_METAINFO['classes']),
    palette=[(120, 120, 120), *SHAPES_METAINFO['palette']],
)
"""Classes of the label maps: what is no shape is a class of its own."""


@dataclass(frozen=True)
class Layout:
    """Files of a data set, and the scenes that suit its task unless told otherwise.

    Args:
        write_split: Writes the split called 'train' or 'val' below a folder.
        out: Folder of the data set.
        train: Number of training images.
        val: Number of validation images.
        size: Height and width of the images.
        num_objects: Least and greatest number of shapes in an image.
        shares: Least and greatest width of a shape over the shorter side of the image.
    """

    write_split: Callable[[Path, str, Scenes], None]
    out: str
    train: int
    val: int
    size: tuple[int, int]
    num_objects: tuple[int, int]
    shares: tuple[float, float] = (0.0, 0.4)


def _write_coco(root: Path, split: str, scenes: Scenes) -> None:
    """Instances: ``train/000001.png``, ``annotations/instances_train.json``."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, image, instances in scenes:
        file_name = f'{number:06d}.png'
        mmcv.imwrite(image, str(root / split / file_name))
        height, width = image.shape[:2]
        images.append(dict(id=number, file_name=file_name, height=height, width=width))
        for instance in instances:
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=instance.label + 1,
                    iscrowd=0,
                    **_describe_mask(instance.mask),
                )
            )
    categories = [
        dict(id=label + 1, name=name)
        for label, name in enumerate(SHAPES_METAINFO['classes'])
    ]
    (root / 'annotations').mkdir(exist_ok=True)
    mmengine.dump(
        dict(
            info=dict(description=f'Textured shapes, {split}'),
            licenses=[],
            images=images,
            annotations=annotations,
            categories=categories,
        ),
        root / 'annotations' / f'instances_{split}.json',
    )


def _describe_mask(mask: np.ndarray) -> dict[str, Any]:
    """COCO's segmentation, area and bbox (x, y, width, height) of a mask (H, W)."""
    rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
    return dict(
        area=float(mask_utils.area(rle)),
        bbox=mask_utils.toBbox(rle).tolist(),
        segmentation=dict(size=rle['size'], counts=rle['counts'].decode('ascii')),
    )


def _write_ade20k(root: Path, split: str, scenes: Scenes) -> None:
    """Label maps: ``images/training/000001.png``, ``annotations/training/000001.png``.

    As in ADE20K, class i has the value i + 1; 0 would be a pixel without a class.
    """
    folder = {'train': 'training', 'val': 'validation'}[split]
    for number, image, instances in scenes:
        labels = np.ones(image.shape[:2], np.uint8)
        for instance in instances:
            labels[instance.mask] = instance.label + 2
        file_name = f'{number:06d}.png'
        mmcv.imwrite(image, str(root / 'images' / folder / file_name))
        mmcv.imwrite(labels, str(root / 'annotations' / folder / file_name))


def _write_imagenet(root: Path, split: str, scenes: Scenes) -> None:
    """Images alone, in a folder for each class: ``train/disc/000001.png``."""
    for name in SHAPES_METAINFO['classes']:
        # Also a class without images has its folder: the folders number the classes.
        (root / split / name).mkdir(parents=True)
    for number, image, (instance,) in scenes:
        name = SHAPES_METAINFO['classes'][instance.label]
        mmcv.imwrite(image, str(root / split / name / f'{number:06d}.png'))


LAYOUTS = {
    'coco': Layout(_write_coco, 'data/shapes', 600, 100, (256, 320), (3, 8)),
    'ade20k': Layout(_write_ade20k, 'data/shapes_seg', 600, 100, (192, 256), (3, 8)),
    # The label is that of the whole image, so the shape is a good part of it.
    'imagenet': Layout(
        _write_imagenet,
        'data/shapes_cls',
        1200,
        300,
        (128, 128),
        num_objects=(1, 1),
        shares=(0.4, 0.65),
    ),
}
