"""Draws scenes of overlapping textured shapes, with the mask of each shape.

A class is a shape and a texture: striped discs, checkered squares, dotted
triangles. Colours, sizes and rotations come from the same distribution for all of
them, so that a model has to learn shape and texture to tell them apart.

Shapes: H, W = image height and width. Lengths are in pixels.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

SHAPES_METAINFO: dict[str, Any] = dict(
    classes=('disc', 'square', 'triangle'),
    palette=[(230, 70, 60), (40, 130, 235), (35, 175, 80)],
)
"""Names and display colours (RGB) of the classes, as MMEngine data sets take them."""

MIN_EXTENT = 24
"""Least width and height of a shape that nothing covers."""

MIN_VISIBLE = 1 / 3
"""Least part of a shape that stays visible."""

MIN_IMAGE_SIDE = 96

# Sizes are least widths over all rotations. Pixels sample the outline, so that a
# sharp corner may lose two of them: the lower end lies above MIN_EXTENT by more.
_SIZES = (28.0, 104.0)
_MAX_SHARE = 0.65  # a square on its corner just fits
_PLACEMENT_TRIES = 50
_SHADOW, _SHADOW_WIDTH = 0.45, 2.5


@dataclass(frozen=True)
class Instance:
    """One shape of a scene.

    Args:
        label: Index into ``SHAPES_METAINFO['classes']``.
        mask: Its visible pixels, (H, W), bool.
        full_area: Its number of pixels before later shapes covered it.
    """

    label: int
    mask: np.ndarray
    full_area: int


def check_size(size: tuple[int, int]) -> None:
    """Raise ValueError unless scenes can be drawn at ``size`` (H, W)."""
    if min(size) < MIN_IMAGE_SIDE:
        raise ValueError(
            f'size (H, W) = {tuple(size)}: a scene needs at least {MIN_IMAGE_SIDE} '
            'pixels each way; ask for a larger one'
        )


def draw_scene(
    rng: np.random.Generator,
    size: tuple[int, int] = (256, 320),
    num_objects: tuple[int, int] = (3, 8),
    shares: tuple[float, float] = (0.0, 0.4),
) -> tuple[np.ndarray, list[Instance]]:
    """Draw one scene: shapes laid over each other on a cloudy background.

    Each shape lies inside the image and leaves at least ``MIN_VISIBLE`` of every
    earlier one uncovered, so that all that is drawn is also annotated.

    Args:
        rng: The only source of randomness.
        size: Height and width of the image.
        num_objects: Least and greatest number of shapes, both included. A shape
            that finds no place is left out.
        shares: Least and greatest width of a shape over the shorter side of the image,
            within 28 to 104 pixels.

    Returns:
        The image, (H, W, 3), uint8, BGR as OpenCV writes it, and its instances from
        bottom to top.

    Raises:
        ValueError: If the image is too small, ``num_objects`` is no range, or the
            shapes do not fit in the image.
    """
    check_size(size)
    least, most = num_objects
    if not 1 <= least <= most:
        raise ValueError(
            f'num_objects = {tuple(num_objects)}: expected (least, greatest) with '
            '1 <= least <= greatest'
        )
    if not 0 <= shares[0] <= shares[1] <= _MAX_SHARE:
        raise ValueError(
            f'shares = {tuple(shares)}: expected (least, greatest) with 0 <= least <= '
            f'greatest <= {_MAX_SHARE}'
        )

    canvas = _background(rng, size)
    instances: list[Instance] = []
    for _ in range(rng.integers(least, most + 1)):
        # Drawn once for all tries: bulky classes are refused a place more often.
        label = int(rng.integers(len(_KINDS)))
        for _ in range(_PLACEMENT_TRIES):
            shape = _Shape.sample(rng, label, size, shares)
            distance = shape.distance(size)
            mask = distance <= 0
            below = [Instance(i.label, i.mask & ~mask, i.full_area) for i in instances]
            if all(i.mask.sum() >= MIN_VISIBLE * i.full_area for i in below):
                shape.paint(canvas, distance)
                instances = [*below, Instance(shape.label, mask, int(mask.sum()))]
                break
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8), instances


# Outlines: signed distance to the border (negative inside) in the shape's own frame,
# for the shape of least width 2, that is with an inscribed circle or strip of that
# width; times size / 2 gives pixels.


def _disc(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.hypot(u, v) - 1


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) - 1


def _triangle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    # Equilateral, of height 2: its sides lie 2/3 from the centre.
    slanted = np.sqrt(0.75) * np.abs(u) - 0.5 * v
    return np.maximum(slanted, v) - 2 / 3


# Textures: share of the second colour in [0, 1] for coordinates in periods, with
# edges `blur` periods wide.


def _stripes(u: np.ndarray, v: np.ndarray, blur: float) -> np.ndarray:
    to_edge = np.abs(u % 1 - 0.5) - 0.25
    return np.clip(to_edge / blur + 0.5, 0, 1)


def _checks(u: np.ndarray, v: np.ndarray, blur: float) -> np.ndarray:
    a, b = _stripes(u, v, blur), _stripes(v, u, blur)
    return a + b - 2 * a * b


def _dots(u: np.ndarray, v: np.ndarray, blur: float) -> np.ndarray:
    # A radius of 0.4 periods colours half of the plane, as the other textures do.
    to_edge = 0.4 - np.hypot(u % 1 - 0.5, v % 1 - 0.5)
    return np.clip(to_edge / blur + 0.5, 0, 1)


@dataclass(frozen=True)
class _Kind:
    outline: Callable[[np.ndarray, np.ndarray], np.ndarray]
    texture: Callable[[np.ndarray, np.ndarray, float], np.ndarray]
    circumradius: float  # of the shape of least width 2


_KINDS = (
    _Kind(_disc, _stripes, 1),
    _Kind(_square, _checks, 2**0.5),
    _Kind(_triangle, _dots, 4 / 3),
)


@dataclass(frozen=True)
class _Shape:
    label: int
    centre: tuple[float, float]  # x, y
    radius: float  # half of the least width
    angle: float
    period: float
    colours: np.ndarray  # (2, 3)

    @classmethod
    def sample(
        cls,
        rng: np.random.Generator,
        label: int,
        size: tuple[int, int],
        shares: tuple[float, float],
    ) -> _Shape:
        """A shape of class ``label`` that lies inside an image of ``size``."""
        smallest = min(_SIZES[1], max(_SIZES[0], shares[0] * min(size)))
        largest = max(smallest, min(_SIZES[1], shares[1] * min(size)))
        width = np.exp(rng.uniform(np.log(smallest), np.log(largest)))
        radius = width / 2
        reach = _KINDS[label].circumradius * radius
        height, full_width = size
        return cls(
            label=label,
            centre=(
                rng.uniform(reach, full_width - 1 - reach),
                rng.uniform(reach, height - 1 - reach),
            ),
            radius=radius,
            angle=rng.uniform(0, 2 * np.pi),
            period=float(np.clip(width * rng.uniform(0.22, 0.32), 7, 18)),
            colours=_colour_pair(rng),
        )

    def _frame(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turn pixel coordinates into the shape's own frame."""
        x, y = x - self.centre[0], y - self.centre[1]
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return cos * x + sin * y, cos * y - sin * x

    def distance(self, size: tuple[int, int]) -> np.ndarray:
        """Signed distance of each pixel to the outline, negative inside, (H, W)."""
        y, x = np.ogrid[: size[0], : size[1]]
        u, v = self._frame(y, x)
        outline = _KINDS[self.label].outline
        return self.radius * outline(u / self.radius, v / self.radius)

    def paint(self, canvas: np.ndarray, distance: np.ndarray) -> None:
        """Lay the shape over ``canvas`` (H, W, 3), with a soft shadow around it."""
        y, x = np.nonzero(distance < 5 * _SHADOW_WIDTH)  # the rest does not change
        distance = distance[y, x]
        u, v = self._frame(y, x)
        texture = _KINDS[self.label].texture
        second = texture(u / self.period, v / self.period, 1 / self.period)[:, None]
        fill = (1 - second) * self.colours[0] + second * self.colours[1]
        shadow = _SHADOW * np.exp(-np.maximum(distance, 0) / _SHADOW_WIDTH)[:, None]
        inside = np.clip(0.5 - distance, 0, 1)[:, None]
        canvas[y, x] = inside * fill + (1 - inside) * (1 - shadow) * canvas[y, x]


def _colour(
    rng: np.random.Generator,
    saturation: tuple[float, float],
    value: tuple[float, float],
) -> np.ndarray:
    """A colour of any hue with channels in [0, 255], (3,)."""
    hsv = rng.uniform(), rng.uniform(*saturation), rng.uniform(*value)
    return 255 * np.array(colorsys.hsv_to_rgb(*hsv))


def _colour_pair(rng: np.random.Generator) -> np.ndarray:
    """A light and a dark colour in random order, (2, 3): any texture is visible."""
    light = _colour(rng, (0.15, 0.55), (0.88, 1.0))
    dark = _colour(rng, (0.5, 0.9), (0.3, 0.5))
    return rng.permutation(np.stack([light, dark]))


def _background(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Two muted colours in clouds of several scales, with grain, (H, W, 3)."""
    height, width = size
    clouds = np.zeros(size)
    for cell, weight in ((96, 1.0), (40, 0.5), (12, 0.25), (4, 0.12)):
        grid = rng.uniform(-1, 1, (height // cell + 2, width // cell + 2))
        clouds += weight * cv2.resize(
            grid, (width, height), interpolation=cv2.INTER_CUBIC
        )
    mix = np.clip(0.5 + 0.5 * clouds, 0, 1)[..., None]
    first = _colour(rng, (0.05, 0.3), (0.45, 0.65))
    second = _colour(rng, (0.05, 0.3), (0.6, 0.8))
    grain = rng.normal(0, 1.5, (height, width, 1))
    return first + mix * (second - first) + grain
