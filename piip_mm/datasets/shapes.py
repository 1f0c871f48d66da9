"""Writes the example data set: scenes of textured shapes in COCO format.

Run as ``python -m piip_mm.datasets.shapes --out data/shapes``. The folder then holds

.. code-block:: text

    shapes.json                        the parameters it was drawn with
    annotations/instances_train.json   boxes and masks (compressed RLE)
    annotations/instances_val.json
    train/000001.png ...
    val/000001.png ...
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mmcv
import mmengine
import numpy as np
from mmengine.logging import print_log
from pycocotools import mask as mask_utils

from .scene import SHAPES_METAINFO, check_size, draw_scene

# Goes up whenever the same parameters draw other pictures, so that older data on
# disk is noticed.
_VERSION = 1
_SPLITS = ('train', 'val')
_PARAMETERS = 'shapes.json'


@dataclass(frozen=True)
class ShapesParameters:
    """What determines the data set; see :func:`generate_shapes`."""

    train: int = 600
    val: int = 100
    seed: int = 0
    size: tuple[int, int] = (256, 320)
    version: int = _VERSION

    def __post_init__(self) -> None:
        for split in _SPLITS:
            if getattr(self, split) < 1:
                raise ValueError(
                    f'{split} = {getattr(self, split)}: expected at least one image'
                )
        if self.seed < 0:
            raise ValueError(f'seed = {self.seed}: expected 0 or a positive integer')
        check_size(self.size)


def generate_shapes(
    out: str | Path,
    *,
    train: int = ShapesParameters.train,
    val: int = ShapesParameters.val,
    seed: int = ShapesParameters.seed,
    size: tuple[int, int] = ShapesParameters.size,
    force: bool = False,
) -> bool:
    """Write the data set to the folder ``out``, once.

    The folder appears under its name only when it is complete. Each image has a
    random stream of its own, given by ``seed``, its split and its number: a longer
    data set starts with the images of a shorter one.

    Args:
        out: The folder to write.
        train: Number of training images.
        val: Number of validation images.
        seed: Seed of all random streams.
        size: Height and width of the images.
        force: Draw anew where the folder holds shapes already.

    Returns:
        True if the data was written, False if it was already there.

    Raises:
        ValueError: If a parameter is out of its range.
        FileExistsError: If ``out`` holds shapes drawn with other parameters (without
            ``force``) or anything else (always: it is never deleted).
    """
    parameters = ShapesParameters(train, val, seed, size)
    # A link to another disk stays a link.
    target = Path(out).resolve()
    if _is_present(target, out, parameters, force):
        print_log(f'{out} is complete already, nothing to do', logger='current')
        return False

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f'.{target.name}-', dir=target.parent
    ) as scratch:
        # Made inside of the scratch folder for the usual permissions, which the
        # scratch folder itself does not have.
        fresh = Path(scratch, 'fresh')
        for split in _SPLITS:
            _write_split(fresh, split, parameters)
        mmengine.dump(asdict(parameters), fresh / _PARAMETERS, indent=2)
        if target.exists():
            target.rename(Path(scratch, 'replaced'))
        fresh.rename(target)
    print_log(f'Wrote {train} train and {val} val images to {out}', logger='current')
    return True


def _is_present(
    target: Path, out: str | Path, parameters: ShapesParameters, force: bool
) -> bool:
    """Whether the wanted data lies at ``target``; refuses to touch anything else."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    if not (target / _PARAMETERS).is_file():
        raise FileExistsError(
            f'{out} exists, but holds no {_PARAMETERS}: it was not written by this '
            'command and is left as it is; choose another folder, or remove it first'
        )
    if force:
        return False
    found = mmengine.load(target / _PARAMETERS)
    wanted = asdict(parameters) | dict(size=list(parameters.size))
    differing = [name for name in wanted if found.get(name) != wanted[name]]
    if differing:
        has = ', '.join(f'{name} = {found.get(name)}' for name in differing)
        asked = ', '.join(f'{name} = {wanted[name]}' for name in differing)
        raise FileExistsError(
            f'{out} was drawn with {has}, but {asked} is asked for; draw it anew with '
            '--force (force=True), choose another folder, or ask for what is there'
        )
    return True


def _write_split(root: Path, split: str, parameters: ShapesParameters) -> None:
    """Write the images of one split and its COCO file below ``root``."""
    height, width = parameters.size
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    count = getattr(parameters, split)
    print_log(f'Drawing {count} {split} images', logger='current')
    for image_id in mmengine.track_iter_progress(range(1, count + 1)):
        rng = np.random.default_rng([parameters.seed, _SPLITS.index(split), image_id])
        image, instances = draw_scene(rng, parameters.size)
        file_name = f'{image_id:06d}.png'
        mmcv.imwrite(image, str(root / split / file_name))
        images.append(dict(id=image_id, file_name=file_name, height=height, width=width))
        for instance in instances:
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
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


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='python -m piip_mm.datasets.shapes',
        description='Write the example data set of textured shapes in COCO format.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    defaults = ShapesParameters()
    parser.add_argument('--out', default='data/shapes', help='folder to write')
    parser.add_argument(
        '--train', type=int, default=defaults.train, help='training images'
    )
    parser.add_argument('--val', type=int, default=defaults.val, help='validation images')
    parser.add_argument(
        '--seed', type=int, default=defaults.seed, help='seed of all images'
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        default=defaults.size,
        help='height and width of the images',
    )
    parser.add_argument(
        '--force', action='store_true', help='draw anew over existing shapes'
    )
    args = parser.parse_args(argv)
    try:
        generate_shapes(
            args.out,
            train=args.train,
            val=args.val,
            seed=args.seed,
            size=tuple(args.size),
            force=args.force,
        )
    except (ValueError, FileExistsError) as error:
        parser.error(str(error))


if __name__ == '__main__':
    main()
