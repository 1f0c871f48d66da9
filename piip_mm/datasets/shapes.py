"""Writes the example data sets: scenes of textured shapes, in one form for each task.

Run as ``python -m piip_mm.datasets.shapes --layout LAYOUT``. Its folder then holds
``shapes.json``, the parameters it was drawn with, and for detection (``coco``, the
default)

.. code-block:: text

    annotations/instances_train.json   boxes and masks (compressed RLE)
    annotations/instances_val.json
    train/000001.png ...
    val/000001.png ...

for segmentation (``ade20k``; 1 is the background, 2 a disc, 3 a square, 4 a triangle)

.. code-block:: text

    images/training/000001.png ...         images/validation/000001.png ...
    annotations/training/000001.png ...    annotations/validation/000001.png ...

and for classification (``imagenet``; one shape in each image)

.. code-block:: text

    train/disc/000002.png ...    train/square/...    train/triangle/...
    val/disc/...                 val/square/...      val/triangle/...
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import mmengine
import numpy as np
from mmengine.logging import print_log

from .layouts import LAYOUTS, Scenes
from .scene import check_size, draw_scene

# Goes up whenever the same parameters draw other pictures, so that older data on
# disk is noticed.
_VERSION = 1
_SPLITS = ('train', 'val')
_PARAMETERS = 'shapes.json'


@dataclass(frozen=True)
class ShapesParameters:
    """What determines the data set; see :func:`generate_shapes`."""

    layout: str
    train: int
    val: int
    seed: int
    size: tuple[int, int]
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
    out: str | Path | None = None,
    *,
    layout: str = 'coco',
    train: int | None = None,
    val: int | None = None,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    force: bool = False,
) -> bool:
    """Write the data set to the folder ``out``, once.

    The folder appears under its name only when it is complete. Each image has a
    random stream of its own, given by ``seed``, its split and its number: a longer
    data set starts with the images of a shorter one.

    Args:
        out: The folder to write; like the following numbers, the layout's own by default.
        layout: A key of ``LAYOUTS``: 'coco' (detection), 'ade20k' (segmentation) or
            'imagenet' (classification).
        train: Number of training images.
        val: Number of validation images.
        seed: Seed of all random streams.
        size: Height and width of the images.
        force: Draw anew where the folder holds shapes already.

    Returns:
        True if the data was written, False if it was already there.

    Raises:
        ValueError: If a parameter is out of its range, or ``layout`` is unknown.
        FileExistsError: If ``out`` holds shapes drawn with other parameters (without
            ``force``) or anything else (always: it is never deleted).
    """
    if layout not in LAYOUTS:
        raise ValueError(f'unknown layout {layout!r}; choose one of {sorted(LAYOUTS)}')
    form = LAYOUTS[layout]
    out = form.out if out is None else out
    parameters = ShapesParameters(
        layout=layout,
        train=form.train if train is None else train,
        val=form.val if val is None else val,
        seed=seed,
        size=form.size if size is None else size,
    )
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
            form.write_split(fresh, split, _draw_scenes(split, parameters))
        mmengine.dump(asdict(parameters), fresh / _PARAMETERS, indent=2)
        if target.exists():
            target.rename(Path(scratch, 'replaced'))
        fresh.rename(target)
    print_log(
        f'Wrote {parameters.train} train and {parameters.val} val images to {out}',
        logger='current',
    )
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


def _draw_scenes(split: str, parameters: ShapesParameters) -> Scenes:
    """The scenes of one split, with a bar of the progress."""
    count = getattr(parameters, split)
    form = LAYOUTS[parameters.layout]
    print_log(f'Drawing {count} {split} images', logger='current')
    for number in mmengine.track_iter_progress(range(1, count + 1)):
        rng = np.random.default_rng([parameters.seed, _SPLITS.index(split), number])
        image, instances = draw_scene(rng, parameters.size, form.num_objects, form.shares)
        yield number, image, instances


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='python -m piip_mm.datasets.shapes',
        description='Write the example data set of textured shapes.',
        # What is not given is left to generate_shapes.
        argument_default=argparse.SUPPRESS,
    )

    def defaults(field: str) -> str:
        return ', '.join(f'{name}: {getattr(LAYOUTS[name], field)}' for name in LAYOUTS)

    parser.add_argument(
        '--layout',
        choices=LAYOUTS,
        help='coco (default) for detection, ade20k for segmentation, imagenet for '
        'classification',
    )
    parser.add_argument('--out', help=f'folder to write ({defaults("out")})')
    parser.add_argument(
        '--train', type=int, help=f'training images ({defaults("train")})'
    )
    parser.add_argument('--val', type=int, help=f'validation images ({defaults("val")})')
    parser.add_argument('--seed', type=int, help='seed of all images (0)')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help=f'height and width of the images ({defaults("size")})',
    )
    parser.add_argument(
        '--force', action='store_true', help='draw anew over existing shapes'
    )
    args = parser.parse_args(argv)
    try:
        generate_shapes(**vars(args))
    except (ValueError, FileExistsError) as error:
        parser.error(str(error))


if __name__ == '__main__':
    main()
