"""What mmdet and pycocotools make of an annotation file in COCO format.

They drop what they cannot use without a word. Where a field is missing, they stop with a
bare KeyError, some only in the validation after the first epoch.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from .class_check import classes_of
from .coco_images import Findings

_NUM_CLASSES = 20
_IMAGE_FIELDS = {'id', 'file_name', 'height', 'width'}
_ANNOTATION_FIELDS = {'id', 'image_id', 'category_id', 'bbox', 'area'}
#: What a box is, for messages about wrong ones.
_BOX = 'bbox is [x, y, width, height] in pixels'


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


class CocoReport:
    """What mmdet and pycocotools make of an annotation file.

    Args:
        ann_file: The file.
        dataset: mmdet's data set; it need not have read its files yet.
        evaluated: Whether pycocotools reads the file as ground truth.
        with_masks: Whether masks are read.

    Attributes:
        errors: What stops or spoils a run.
        warnings: What is left out or assumed.
        images: Images by id.
        used: Images that are not filtered out.
        counts: Number of objects of each class; groups ('iscrowd') do not count.

    Raises:
        ValueError: See :func:`read_coco`.
    """

    def __init__(
        self, ann_file: str, dataset: Any, *, evaluated: bool, with_masks: bool
    ) -> None:
        self.trained = not dataset.test_mode
        self.evaluated = evaluated
        self.with_masks = with_masks
        self.errors: Findings = defaultdict(list)
        self.warnings: Findings = defaultdict(list)
        content = read_coco(ann_file, needs_annotations=self.trained)
        self.num_annotations = len(content['annotations'])
        self._categories = {one['id']: one['name'] for one in content['categories']}
        self._check_classes(classes_of(dataset) or [])
        self.images: dict[Any, dict] = {}
        for image in content['images']:
            if mistake := _image_mistake(image, self.images):
                self.errors[mistake].append(image.get('id', image.get('file_name')))
            else:
                self.images[image['id']] = image
        has_all_images = len(self.images) == len(content['images'])
        self.counts: Counter[str] = Counter()
        self._images_with_classes: set[Any] = set()
        ids: set[Any] = set()
        for annotation in content['annotations']:
            if mistake := _annotation_mistake(annotation, ids, evaluated):
                self.errors[mistake].append(annotation.get('id'))
                continue
            ids.add(annotation['id'])
            if has_all_images:
                self._count(annotation)
        self.used: list[dict] = []
        if has_all_images:
            self._filter_images(dataset.filter_cfg or {})

    def __str__(self) -> str:
        counts = [f'{name} {self.counts[name]}' for name in self.classes[:_NUM_CLASSES]]
        rest = ['...'] if len(self.classes) > _NUM_CLASSES else []
        return (
            f'{len(self.used)} of {len(self.images)} images and {self.counts.total()} of '
            f'{self.num_annotations} annotations are used ({", ".join(counts + rest)})'
        )

    def _check_classes(self, classes: list[str]) -> None:
        """Compare classes with the file, in whose order mmdet numbers what it finds."""
        names = list(self._categories.values())
        self.classes = [name for name in names if name in classes]
        self._wanted = set(self.classes)
        rest = ['...'] if len(names) > _NUM_CLASSES else []
        advice = (
            'set metainfo=dict(classes=...) of the data set to these names, in this '
            f'order: {", ".join(names[:_NUM_CLASSES] + rest)}'
        )
        if absent := [name for name in classes if name not in names]:
            self.errors[f'class(es) that are no category of the file; {advice}'] = absent
        elif self.classes != classes:
            self.errors[f'classes in another order than in the file; {advice}'] = classes

    def _count(self, annotation: Mapping[str, Any]) -> None:
        """Count a sound annotation as ``CocoDataset.parse_data_info`` does, or say why it
        is left out."""
        name = self._categories.get(annotation['category_id'])
        image = self.images.get(annotation['image_id'])
        ident = annotation['id']
        if name in self._wanted:
            self._images_with_classes.add(annotation['image_id'])
        if image is None or name is None:
            kind = 'image' if image is None else 'category'
            key = f'annotation(s) whose {kind}_id is that of no {kind} ("1" is not 1)'
            self.warnings[f'{key}: left out'].append(ident)
            return
        if name not in self._wanted:
            return
        x, y, w, h = annotation['bbox']
        width, height = image['width'], image['height']
        reason = None
        if annotation.get('ignore'):
            reason = 'annotation(s) with "ignore"'
        elif w < 1 or h < 1:
            reason = f'box(es) less than 1 pixel wide or high ({_BOX})'
        elif not (min(x + w, width) > max(x, 0) and min(y + h, height) > max(y, 0)):
            reason = f'box(es) outside the image ({_BOX})'
        elif annotation['area'] <= 0:
            reason = 'annotation(s) with an area of 0 or less'
        if reason is None or self.evaluated:
            reason = self._check_mask(annotation, width, height) or reason
        if reason:
            # pycocotools knows none of these rules.
            but = ', but the evaluation takes them for ground truth' * self.evaluated
            self.warnings[f'{reason}: left out{but}'].append(ident)
            return
        if min(x, y) < -1 or x + w > width + 1 or y + h > height + 1:
            self.warnings[f'box(es) cut off at the border ({_BOX})'].append(ident)
        if 'iscrowd' not in annotation:
            self.warnings['annotation(s) without iscrowd: taken as 0'].append(ident)
        if self.evaluated and ident == 0:
            key = 'annotation with id 0, which pycocotools takes for "none": start with 1'
            self.warnings[key].append(ident)
        if not annotation.get('iscrowd'):
            self.counts[name] += 1

    def _check_mask(
        self, annotation: Mapping[str, Any], width: int, height: int
    ) -> str | None:
        """Why the mask of an annotation is left out, if it is."""
        mask = annotation.get('segmentation')
        if not self.with_masks:
            return None
        if mistake := _mask_mistake(mask, width, height, self.evaluated):
            self.errors[mistake].append(annotation['id'])
        elif isinstance(mask, list):
            few = sum(len(part) < 6 or len(part) % 2 == 1 for part in mask)
            if few == len(mask):
                return 'annotation(s) whose polygons have less than 3 points'
            if few:
                key = 'annotation(s) that lose polygons with less than 3 points'
                self.warnings[key].append(annotation['id'])
        return None

    def _filter_images(self, filter_cfg: Mapping[str, Any]) -> None:
        """Filter as ``CocoDataset.filter_data`` does, and say what remains."""
        names = Counter(image['file_name'] for image in self.images.values())
        if shared := [name for name, number in names.items() if number > 1]:
            key = 'file(s) of several images, each of which has its own annotations'
            self.warnings[key] = shared
        self.used = list(self.images.values())
        if not self.trained:
            if not self.counts:
                key = 'image(s), but nothing to find in them: metrics will be -1'
                self.warnings[key] = list(self.images)
            return
        if filter_cfg.get('filter_empty_gt'):
            found = self._images_with_classes
            self.used = [image for image in self.used if image['id'] in found]
        limit = filter_cfg.get('min_size', 0)
        sizes = [min(image['width'], image['height']) for image in self.used]
        pairs = list(zip(self.used, sizes, strict=True))
        if small := [image['id'] for image, size in pairs if size < limit]:
            key = f'image(s) smaller than min_size={limit} of filter_cfg: left out'
            self.warnings[key] = small
            self.used = [image for image, size in pairs if size >= limit]
        if self.errors:
            return
        if not self.counts or not self.used:
            key = 'image(s), but nothing to train on, except what is left out or iscrowd'
            self.errors[key] = list(self.images)
        elif unseen := [name for name in self.classes if name not in self.counts]:
            self.warnings['class(es) without anything to train on'] = unseen


def _image_mistake(image: Mapping[str, Any], others: Mapping[Any, Any]) -> str | None:
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


def _annotation_mistake(
    annotation: Mapping[str, Any], others: set[Any], evaluated: bool
) -> str | None:
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
        return f'annotation(s) whose bbox is not four finite numbers; {_BOX}'
    if not _are_numbers([annotation['area']]):
        return 'annotation(s) whose area is not a finite number'
    if annotation.get('iscrowd', 0) not in (0, 1):
        return 'annotation(s) whose iscrowd is neither 0 nor 1'
    return None


def _mask_mistake(mask: Any, width: int, height: int, evaluated: bool) -> str | None:
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
