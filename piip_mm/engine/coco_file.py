"""What an annotation file in COCO format has to contain.

Without it, mmdet and pycocotools stop with a bare KeyError, some only in the validation
after the first epoch, or train on nonsense.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

#: What a box is, for messages about wrong ones.
BOX = 'bbox is [x, y, width, height] in pixels'
_IMAGE_FIELDS = {'id', 'file_name', 'height', 'width'}
_ANNOTATION_FIELDS = {'id', 'image_id', 'category_id', 'bbox', 'area'}


def read_coco(
    ann_file: str | Path, needs_annotations: bool = True
) -> dict[str, list[dict]]:
    """Images, annotations and categories of an annotation file.

    Raises:
        ValueError: If it is no such file, or if its categories have no names or ids, or
            share them.
    """
    try:
        content = json.loads(Path(ann_file).read_text())
    except ValueError as error:
        raise ValueError(f'{ann_file} is not a JSON file: {error}') from error
    parts = ('images', 'annotations', 'categories')
    expected = f'expected a COCO annotation file with {", ".join(parts)}'
    if not isinstance(content, dict):
        raise ValueError(f'{ann_file} is a {type(content).__name__}; {expected}')
    if not needs_annotations:
        content.setdefault('annotations', [])
    needed = parts if needs_annotations else ('images', 'categories')
    if empty := [part for part in needed if not content.get(part)]:
        raise ValueError(f'{ann_file} has no {" and no ".join(empty)}; {expected}')
    for part in parts:
        entries = content[part]
        if not isinstance(entries, list) or not all(type(one) is dict for one in entries):
            raise ValueError(f'{ann_file}: {part} is not a list of dicts; {expected}')
    categories = content['categories']
    for one in categories:
        if not (isinstance(one.get('name'), str) and _is_id(one.get('id'))):
            raise ValueError(
                f'{ann_file} has the category {one}: expected a number as id and a '
                'string as name'
            )
    for field in ('id', 'name'):
        values = [one[field] for one in categories]
        if len(set(values)) < len(values):
            raise ValueError(f'{ann_file} names a category twice: {field}s {values}')
    return content


def image_mistake(image: Mapping[str, Any], others: Mapping[Any, Any]) -> str | None:
    """What is wrong with an image; ``others`` are the ones before it, by id."""
    lacking = sorted(_IMAGE_FIELDS - image.keys())
    if lacking:
        return f'image(s) without {" and ".join(lacking)}: add what is missing'
    if not _is_id(image['id']):
        return 'image(s) whose id is neither a number nor a string'
    if image['id'] in others:
        return (
            'image(s) with the id of another, which gets the annotations of both: give '
            'each its own'
        )
    if not (isinstance(image['file_name'], str) and image['file_name']):
        return 'image(s) whose file_name is not a name'
    sizes = image['width'], image['height']
    if not _are_numbers([*sizes]) or min(sizes) <= 0:
        return 'image(s) whose width or height is not a positive number'
    return None


def annotation_mistake(
    annotation: Mapping[str, Any], others: set[Any], evaluated: bool
) -> str | None:
    """What is wrong with an annotation.

    Args:
        annotation: Its entry.
        others: Ids of the annotations before it.
        evaluated: Whether pycocotools reads it, too.
    """
    fields = _ANNOTATION_FIELDS | {'iscrowd'} if evaluated else _ANNOTATION_FIELDS
    if not fields <= annotation.keys():
        lacking = sorted(fields - annotation.keys())
        return (
            f'annotation(s) without {" and ".join(lacking)}: add what is missing '
            '(iscrowd: 0, except for groups; area: of the mask, or width * height)'
        )
    ids = annotation['id'], annotation['image_id'], annotation['category_id']
    if not all(map(_is_id, ids)):
        return 'annotation(s) with ids that are neither numbers nor strings'
    if ids[0] in others:
        return 'annotation(s) with the id of another: give each its own'
    if evaluated and isinstance(ids[0], str):
        return 'annotation(s) with strings as id, but pycocotools needs numbers'
    box = annotation['bbox']
    if not _are_numbers(box) or len(box) != 4:
        return f'annotation(s) whose bbox is not four finite numbers; {BOX}'
    if not _are_numbers([annotation['area']]):
        return 'annotation(s) whose area is not a finite number'
    if annotation.get('iscrowd', 0) not in (0, 1):
        return 'annotation(s) whose iscrowd is neither 0 nor 1'
    return None


def mask_mistake(mask: Any, width: int, height: int, evaluated: bool) -> str | None:
    """What is wrong with the ``segmentation`` of an annotation in an image."""
    if not mask:
        return (
            'annotation(s) without segmentation: add it, or use a config for boxes only '
            '(no with_mask, mask_head and segm)'
        )
    if isinstance(mask, dict):
        counts = mask.get('counts')
        is_whole = isinstance(counts, str)
        if _are_numbers(counts):
            is_whole = sum(counts or []) == width * height
        if is_whole and mask.get('size') == [height, width]:
            return None
        return 'segmentation(s) whose counts or size are not those of the whole image'
    if not (isinstance(mask, list) and all(map(_are_numbers, mask))):
        return 'segmentation(s) that are not lists of polygons [[x1, y1, x2, y2, ...]]'
    if evaluated and len(mask[0]) < 5:
        return 'segmentation(s) whose first polygon has less than 3 points: remove it'
    return None


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, float, str))


def _are_numbers(values: Any) -> bool:
    """Whether this is a list of finite numbers; others would end up in the loss."""
    try:
        return isinstance(values, list) and isfinite(sum(values))
    except TypeError:
        return False
