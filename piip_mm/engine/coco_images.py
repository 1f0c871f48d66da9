"""Looks up the images of a data set in COCO format on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import cv2
from mmcv.transforms import LoadImageFromFile
from PIL import Image

from .coco_report import CocoReport

_EXIF_ORIENTATION = 0x0112
#: Images that are read, spread over the data set.
_NUM_READ = 16

_OPTION = "color_type='color_ignore_orientation' of LoadImageFromFile in all pipelines"
_OTHER_SIZE = (
    'of the images read are not of the width and height in the annotation file, so their '
    'boxes may be elsewhere: correct the file, or use the images that were annotated'
)
_UNTURNED = (
    'of the images read are turned by their EXIF orientation, but not their width and '
    'height in the annotation file: if the boxes are those of unturned images, load '
    f'these, with {_OPTION}; otherwise exchange width and height'
)
_MAYBE_UNTURNED = (
    'of the images read are turned or mirrored by their EXIF orientation: if the boxes '
    f'are those of unturned images, set {_OPTION}'
)


def check_images(report: CocoReport, dataset: Any) -> None:
    """Look for the files of the images that are used and, in a few of them, for other
    sizes than those of the annotation file; add what is found to the report.

    Args:
        report: Report about the annotation file.
        dataset: mmdet's data set; it need not have read its files yet.
    """
    folder = dataset.data_prefix.get('img', '')
    if '://' in folder:
        return

    @cache
    def names_in(directory: str) -> frozenset[str]:
        # One look at a folder is faster than one at each of its files.
        return frozenset(os.listdir(directory) if os.path.isdir(directory) else ())

    found: list[dict] = []
    missing: list[dict] = []
    for image in report.used:
        directory, name = os.path.split(os.path.join(folder, image['file_name']))
        (found if name in names_in(directory or '.') else missing).append(image)
    if missing:
        names = [image['file_name'] for image in missing]
        fix = _likely_fix(Path(folder), names[0], dataset.data_root or '')
        report.errors[f'image(s) not found in {folder}: {fix}'] = names
    steps = dataset.pipeline.transforms
    loader = next((step for step in steps if isinstance(step, LoadImageFromFile)), None)
    if loader is not None:
        for image in found[:: -(-len(found) // _NUM_READ) or 1]:
            _check_size(image, folder, loader, report)


def _check_size(
    image: Mapping[str, Any], folder: str, loader: LoadImageFromFile, report: CocoReport
) -> None:
    """Compare the size in the annotation file with what the pipeline loads.

    Boxes and masks have to be those of the loaded image, which its EXIF orientation has
    turned, unless the loader ignores that.
    """
    name, path = image['file_name'], os.path.join(folder, image['file_name'])
    try:
        loaded = loader.transform({'img_path': path})
        if loaded is None:  # with ignore_empty
            return
        with Image.open(path) as file:
            orientation = file.getexif().get(_EXIF_ORIENTATION, 1)
    except (AssertionError, OSError, cv2.error) as error:
        report.errors['image(s) that cannot be read'].append(f'{name}: {error}')
        return
    expected, (height, width) = (image['width'], image['height']), loaded['ori_shape']
    if expected != (width, height):
        is_unturned = expected == (height, width) and orientation > 4
        sizes = f'{expected[0]} x {expected[1]} in the file, loaded {width} x {height}'
        report.errors[_UNTURNED if is_unturned else _OTHER_SIZE].append(
            f'{name}: {sizes}'
        )
    elif (
        'ignore_orientation' not in loader.color_type
        and orientation > 1
        # Otherwise the sizes tell that the turned image was annotated.
        and (orientation < 5 or width == height)
    ):
        report.warnings[_MAYBE_UNTURNED].append(name)


def _likely_fix(folder: Path, name: str, data_root: str) -> str:
    """Where ``folder / name`` may be instead."""
    children = sorted(path for path in folder.glob('*') if path.is_dir())
    for place in (folder.parent, folder.parent.parent, *children):
        if (place / name).is_file():
            prefix = os.path.relpath(place, data_root or '.')
            prefix = '' if prefix == '.' else f'{prefix}/'
            return (
                f'{name} is in {place}; set data_prefix=dict(img={prefix!r}) of the data '
                f'set, or custom.train_img={prefix} custom.val_img={prefix}'
            )
    parts = Path(name).parts
    for start in range(1, len(parts)):
        if folder.joinpath(*parts[start:]).is_file():
            extra = os.path.join(*parts[:start], '')
            return f'{parts[-1]} is there without {extra}; remove it from file_name'
    parent = (folder / name).parent
    if parent.is_dir():
        for other in sorted(os.listdir(parent)):
            if Path(other).stem in (parts[-1], Path(name).stem):
                return f'{other} is there; correct file_name'
    return 'correct data_prefix (custom.train_img, custom.val_img) or file_name'
