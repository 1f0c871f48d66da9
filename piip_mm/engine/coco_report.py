"""What is used of an annotation file in COCO format.

mmdet and pycocotools leave out the rest without a word.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from piip_mm.checks import shown

from .class_check import classes_of
from .coco_file import BOX, annotation_mistake, image_mistake, mask_mistake, read_coco

_NUM_CLASSES = 20

#: Examples, by what is wrong with them.
Findings = dict[str, list[Any]]


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
            if mistake := image_mistake(image, self.images):
                self.errors[mistake].append(image.get('id', image.get('file_name')))
            else:
                self.images[image['id']] = image
        has_all_images = len(self.images) == len(content['images'])
        self.counts: Counter[str] = Counter()
        self._images_with_classes: set[Any] = set()
        ids: set[Any] = set()
        for annotation in content['annotations']:
            if mistake := annotation_mistake(annotation, ids, evaluated):
                self.errors[mistake].append(annotation.get('id'))
                continue
            ids.add(annotation['id'])
            if has_all_images:
                self._count(annotation)
        self.used: list[dict] = []
        if has_all_images:
            self._filter_images(dataset.filter_cfg or {})

    def __str__(self) -> str:
        counts = (f'{name} {self.counts[name]}' for name in self.classes)
        return (
            f'{len(self.used)} of {len(self.images)} images and {self.counts.total()} of '
            f'{self.num_annotations} annotations are used ({shown(counts, _NUM_CLASSES)})'
        )

    def _check_classes(self, classes: list[str]) -> None:
        """Compare classes with the file, in whose order mmdet numbers what it finds."""
        names = list(self._categories.values())
        self.classes = [name for name in names if name in classes]
        self._wanted = set(self.classes)
        advice = (
            'set metainfo=dict(classes=...) of the data set to these names, in this '
            f'order: {shown(names, _NUM_CLASSES)}'
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
        reason = self._ignored(annotation, width, height)
        if self.with_masks and (reason is None or self.evaluated):
            reason = self._check_mask(annotation, width, height) or reason
        if reason:
            # pycocotools knows none of these rules.
            but = ', but the evaluation takes them for ground truth' * self.evaluated
            self.warnings[f'{reason}: left out{but}'].append(ident)
            return
        if min(x, y) < -1 or x + w > width + 1 or y + h > height + 1:
            self.warnings[f'box(es) cut off at the border ({BOX})'].append(ident)
        if 'iscrowd' not in annotation:
            self.warnings['annotation(s) without iscrowd: taken as 0'].append(ident)
        if self.evaluated and ident == 0:
            key = 'annotation with id 0, which pycocotools takes for "none": start with 1'
            self.warnings[key].append(ident)
        if not annotation.get('iscrowd'):
            self.counts[name] += 1

    @staticmethod
    def _ignored(annotation: Mapping[str, Any], width: int, height: int) -> str | None:
        """Why mmdet leaves out the box of an annotation, if it does."""
        x, y, w, h = annotation['bbox']
        if annotation.get('ignore'):
            return 'annotation(s) with "ignore"'
        if w < 1 or h < 1:
            return f'box(es) less than 1 pixel wide or high ({BOX})'
        if not (min(x + w, width) > max(x, 0) and min(y + h, height) > max(y, 0)):
            return f'box(es) outside the image ({BOX})'
        if annotation['area'] <= 0:
            return 'annotation(s) with an area of 0 or less'
        return None

    def _check_mask(
        self, annotation: Mapping[str, Any], width: int, height: int
    ) -> str | None:
        """Why the mask of an annotation is left out, if it is."""
        mask = annotation.get('segmentation')
        if mistake := mask_mistake(mask, width, height, self.evaluated):
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
