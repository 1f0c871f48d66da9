"""Make an example data set of textured shapes.

A class is a shape and a texture: striped discs, checkered squares, dotted triangles.
Colours, sizes and rotations follow the same distribution in every class, so that a model
has to learn shape and texture. Each layout writes the files of one task, and shapes.json
with the parameters they were made with:

coco      train/000001.png ...  val/000001.png ...
          annotations/instances_{train,val}.json    boxes and masks
ade20k    images/{training,validation}/000001.png ...
          annotations/{training,validation}/000001.png ...
                    label maps: 1 background, 2 disc, 3 square, 4 triangle
imagenet  {train,val}/{disc,square,triangle}/000001.png ...    one shape per image
"""

from __future__ import annotations

import argparse
import colorsys
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine.fileio import dump, load
from mmengine.utils import track_iter_progress
from numpy.random import Generator, default_rng
from pycocotools import mask as mask_utils

VERSION = 2  # goes up whenever the same parameters give other images
MIN_IMAGE_SIDE = 96
WIDTHS = (28, 104)  # limits of a shape's width, taken where it is narrowest, in pixels
MIN_VISIBLE = 1 / 3  # least part of a shape that later ones leave uncovered
PLACEMENT_TRIES = 50

Range = tuple[float, float]
# The number of each scene, which names its files, and what `draw_scene` returns.
Scenes = Iterable[tuple[int, np.ndarray, np.ndarray, list[int]]]

# Textures: distance to the nearest border between two colours, negative in one of them,
# at the coordinates u, v; all in periods.


def stripes(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return 0.25 - np.abs(u % 1 - 0.5)


def checks(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    a, b = stripes(u, v), stripes(v, u)
    return np.sign(a * b) * np.minimum(np.abs(a), np.abs(b))


def dots(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.hypot(u % 1 - 0.5, v % 1 - 0.5) - 0.4


CLASSES = ('disc', 'square', 'triangle')
CORNERS = (64, 4, 3)
REACH = (1 / 2, 1 / 2**0.5, 2 / 3)  # radius of the circumscribed circle / width
TEXTURES = (stripes, checks, dots)


def draw_scene(
    rng: Generator,
    size: Sequence[int],
    num_shapes: tuple[int, int] = (3, 8),
    shares: Range = (0.0, 0.4),
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Draw shapes over each other; one that finds no place is left out.

    ``num_shapes`` is the range of their number, ``shares`` that of their widths as a part
    of the image's shorter side.

    Returns:
        The image (H, W, 3), BGR; which shape is on top in each pixel (H, W), counted
        from 1 with 0 for the background; and the class of each shape.
    """
    image = draw_background(rng, size)
    on_top = np.zeros(size, np.uint8)
    labels: list[int] = []
    areas: list[int] = []
    for _ in range(rng.integers(*num_shapes, endpoint=True)):
        number = len(labels) + 1
        # Drawn once for all tries: bulky classes are refused a place more often.
        label = int(rng.integers(len(CLASSES)))
        for _ in range(PLACEMENT_TRIES):
            coverage, fill = draw_shape(rng, label, size, shares)
            covered = np.where(coverage >= 0.5, np.uint8(number), on_top)
            visible = np.bincount(covered.ravel(), minlength=number + 1)[1:]
            if np.all(visible[:-1] >= MIN_VISIBLE * np.array(areas)):
                on_top = covered
                labels.append(label)
                areas.append(visible[-1])
                shadow = 0.85 * cv2.GaussianBlur(coverage, (0, 0), sigmaX=3)
                near = shadow > 0  # only these pixels change
                inside, shade = coverage[near, None], 1 - shadow[near, None]
                image[near] = inside * fill[near] + (1 - inside) * shade * image[near]
                break
    return np.clip(image + 0.5, 0, 255).astype(np.uint8), on_top, labels


def draw_shape(
    rng: Generator, label: int, size: Sequence[int], shares: Range
) -> tuple[np.ndarray, np.ndarray]:
    """The part of each pixel that a shape covers (H, W), and its texture (H, W, 3)."""
    height, width = size
    limits = np.clip(np.multiply(shares, min(size)), *WIDTHS)
    extent = np.exp(rng.uniform(*np.log(limits)))
    radius = extent * REACH[label]
    centre = rng.uniform(radius, (width - 1 - radius, height - 1 - radius))
    angle = rng.uniform(0, 2 * np.pi)

    # A side lies along the axis u of the texture.
    turns = 0.25 + (np.arange(CORNERS[label]) + 0.5) / CORNERS[label]
    angles = angle + 2 * np.pi * turns
    corners = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    # Drawn four times as large, and averaged.
    fine = np.zeros((4 * height, 4 * width), np.uint8)
    cv2.fillPoly(fine, [np.rint(4 * corners + 1.5).astype(np.int32)], 255)
    coverage = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA) / 255

    period = np.clip(extent * rng.uniform(0.22, 0.32), 7, 18)
    light = draw_colour(rng, (0.15, 0.55), (0.88, 1.0))
    dark = draw_colour(rng, (0.5, 0.9), (0.3, 0.5))
    first, second = rng.permutation([light, dark])
    y, x = np.nonzero(coverage)
    dx, dy = (x - centre[0]) / period, (y - centre[1]) / period
    cos, sin = np.cos(angle), np.sin(angle)
    # In the frame of the shape.
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    # From one colour to the other within one pixel.
    mix = np.clip(0.5 - period * TEXTURES[label](u, v), 0, 1)[:, None]
    fill = np.zeros((height, width, 3))
    fill[y, x] = first + mix * (second - first)
    return coverage, fill


def draw_colour(rng: Generator, saturation: Range, value: Range) -> np.ndarray:
    """A colour of any hue with channels in [0, 255], (3,)."""
    hsv = rng.uniform(), rng.uniform(*saturation), rng.uniform(*value)
    return 255 * np.array(colorsys.hsv_to_rgb(*hsv))


def draw_background(rng: Generator, size: Sequence[int]) -> np.ndarray:
    """Clouds of several scales between two muted colours, with grain, (H, W, 3)."""
    height, width = size
    clouds = np.zeros((height, width))
    for cell, weight in ((96, 1.0), (40, 0.5), (12, 0.25), (4, 0.12)):
        grid = rng.uniform(-1, 1, (height // cell + 2, width // cell + 2))
        clouds += weight * cv2.resize(grid, size[::-1], interpolation=cv2.INTER_CUBIC)
    mix = np.clip(0.5 + 0.5 * clouds, 0, 1)[..., None]
    first = draw_colour(rng, (0.05, 0.3), (0.45, 0.65))
    second = draw_colour(rng, (0.05, 0.3), (0.6, 0.8))
    return first + mix * (second - first) + rng.normal(0, 1.5, (height, width, 1))


def write_coco(root: Path, split: str, scenes: Scenes) -> None:
    """Write one split of instances."""
    images: list[dict] = []
    annotations: list[dict] = []
    for number, image, on_top, labels in scenes:
        name = f'{number:06d}.png'
        mmcv.imwrite(image, str(root / split / name))
        height, width = on_top.shape
        images.append(dict(id=number, file_name=name, height=height, width=width))
        for k, label in enumerate(labels, start=1):
            rle = mask_utils.encode(np.asfortranarray(on_top == k, dtype=np.uint8))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=label + 1,
                    iscrowd=0,
                    area=float(mask_utils.area(rle)),
                    bbox=mask_utils.toBbox(rle).tolist(),
                    segmentation=dict(size=rle['size'], counts=rle['counts'].decode()),
                )
            )
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES, start=1)]
    content = dict(images=images, annotations=annotations, categories=categories)
    dump(content, root / f'annotations/instances_{split}.json')


def write_ade20k(root: Path, split: str, scenes: Scenes) -> None:
    """Write one split of label maps: class i has the value i + 1, as in ADE20K."""
    folder = dict(train='training', val='validation')[split]
    for number, image, on_top, labels in scenes:
        values = np.array([1, *(label + 2 for label in labels)], np.uint8)
        mmcv.imwrite(image, str(root / f'images/{folder}/{number:06d}.png'))
        mmcv.imwrite(values[on_top], str(root / f'annotations/{folder}/{number:06d}.png'))


def write_imagenet(root: Path, split: str, scenes: Scenes) -> None:
    """Write one split of images in a folder per class."""
    for name in CLASSES:  # also one without images: the folders number the classes
        (root / split / name).mkdir(parents=True)
    for number, image, _, (label,) in scenes:
        mmcv.imwrite(image, str(root / split / CLASSES[label] / f'{number:06d}.png'))


# How each layout is written, the options of its scenes, and its parameters by default.
LAYOUTS: dict[str, tuple[Callable, dict, dict]] = dict(
    coco=(write_coco, {}, dict(train=600, val=100, size=[256, 320])),
    ade20k=(write_ade20k, {}, dict(train=600, val=100, size=[192, 256])),
    imagenet=(
        write_imagenet,
        # The label is that of the whole image, so the shape is a good part of it: up to
        # the largest square that fits on its corner.
        dict(num_shapes=(1, 1), shares=(0.4, 0.65)),
        dict(train=1200, val=300, size=[128, 128]),
    ),
)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the data set to a folder that appears when it is complete."""
    args = parse_args(argv)
    out = args.pop('out')
    write_split, scene_options, defaults = LAYOUTS[args['layout']]
    parameters = defaults | args | dict(version=VERSION)
    for name, lowest in dict(train=1, val=1, size=MIN_IMAGE_SIDE, seed=0).items():
        if np.min(parameters[name]) < lowest:
            sys.exit(f'--{name} {parameters[name]}: expected {lowest} or more')

    target = out.resolve()  # a link to another disk stays a link
    if target.is_file() or (target.exists() and any(target.iterdir())):
        marker = target / 'shapes.json'
        found = load(marker) if marker.is_file() else 'something else'
        if found != parameters:
            sys.exit(f'{out} holds {found}, not {parameters}; remove it or change --out')
        print(f'{out} is complete already')
        return

    partial = target.with_name(f'.{target.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)  # what an interrupted run has left
    for index, split in enumerate(('train', 'val')):
        count, size, seed = (parameters[name] for name in (split, 'size', 'seed'))
        print(f'Drawing {count} images of {split}')
        scenes = (
            # A generator for each image: more images start with the same ones.
            (n, *draw_scene(default_rng([seed, index, n]), size, **scene_options))
            for n in track_iter_progress(range(1, count + 1))
        )
        write_split(partial, split, scenes)
    dump(parameters, partial / 'shapes.json')
    partial.rename(target)
    print(f'Wrote {out}')


def parse_args(argv: Sequence[str] | None) -> dict[str, Any]:
    """Command line; what depends on the layout is left out if it is not given."""
    defaults = [f'{name:10}{values}' for name, (*_, values) in LAYOUTS.items()]
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='\n'.join(['defaults:', *defaults]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument('--layout', choices=LAYOUTS, default='coco')
    parser.add_argument('--out', type=Path, required=True, help='folder to write')
    parser.add_argument('--train', type=int, help='number of training images')
    parser.add_argument('--val', type=int, help='number of validation images')
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'))
    parser.add_argument('--seed', type=int, default=0)
    return vars(parser.parse_args(argv))


if __name__ == '__main__':
    main()
