"""The example data: the drawing, the command, and the files as OpenMMLab reads them."""

from __future__ import annotations

import json
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from unittest.mock import Mock

import cv2
import make_shapes
import numpy as np
import pytest
import zoo
from make_shapes import CLASSES, LAYOUTS, draw_scene
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, DefaultScope
from numpy.random import default_rng

BASES = dict(
    coco='det/_base_/datasets/shapes_instance.py',
    ade20k='seg/_base_/datasets/shapes_semantic.py',
    imagenet='cls/_base_/datasets/shapes_classification.py',
)
SPLITS = dict(train=6, val=3)
SIZE = (96, 128)
ONE = dict(num_shapes=(1, 1))
ONE_LARGE = LAYOUTS['imagenet'][1]


def make(out, layout='coco', train=SPLITS['train'], seed=0):
    """Run the command with ``SPLITS`` and ``SIZE``."""
    counts = f'--train {train} --val {SPLITS["val"]} --size {SIZE[0]} {SIZE[1]}'.split()
    make_shapes.main(
        ['--layout', layout, '--out', str(out), '--seed', str(seed), *counts]
    )


def scene(layout, split, number):
    """What the files made by ``make`` hold."""
    rng = default_rng([0, list(SPLITS).index(split), number])
    return draw_scene(rng, SIZE, **LAYOUTS[layout][1])


def contents(root):
    files = (path for path in root.rglob('*') if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.fixture(scope='module')
def roots(tmp_path_factory):
    """The folder with a data set per layout."""
    folder = tmp_path_factory.mktemp('data')
    for layout in LAYOUTS:
        make(folder / layout, layout)
    return folder


# The drawing


def test_shapes_cover_each_other_and_a_third_stays_visible():
    covered = []
    for seed in range(8):
        # The same scene with one, two, ... shapes: the last one is whole.
        steps = [draw_scene(default_rng(seed), (160, 192), (k, k)) for k in range(1, 8)]
        for (before, *_), (after, on_top, labels) in pairwise(steps):
            last = on_top == len(labels)
            assert (before != after)[last].any(-1).mean() > 0.9
            # Shadows reach 12 pixels.
            near = cv2.dilate(last.astype(np.uint8), np.ones((27, 27)))
            assert (before == after)[near == 0].all()
        _, final, labels = steps[-1]
        for number, (_, on_top, found) in enumerate(steps, start=1):
            assert found == labels[:number]
            whole, visible = on_top == number, final == number
            assert (whole >= visible).all()
            assert visible.sum() >= whole.sum() / 3
            covered.append(visible.sum() < whole.sum())
    assert 0.2 < np.mean(covered) < 0.8


@pytest.mark.parametrize(
    ('size', 'options', 'widths'),
    [
        ((256, 320), ONE, (28, 102.4)),
        ((96, 96), ONE, (28, 38.4)),
        ((128, 128), ONE_LARGE, (51.2, 83.2)),
        ((160, 224), ONE_LARGE, (64, 104)),
    ],
)
def test_outlines_are_whole_and_as_wide_as_asked_for(size, options, widths):
    # Area / area of the least enclosing circle, and area / width^2.
    fullness = (1, 2 / np.pi, 3 * 3**0.5 / (4 * np.pi))
    fraction = (np.pi / 4, 1, 3**-0.5)
    found = []
    for seed in range(90):
        _, on_top, (label,) = draw_scene(default_rng(seed), size, **options)
        _, radius = cv2.minEnclosingCircle(np.argwhere(on_top).astype(np.float32))
        area = on_top.sum()
        assert area / (np.pi * radius**2) == pytest.approx(fullness[label], abs=0.07)
        found.append((area / fraction[label]) ** 0.5)
    assert (min(found), max(found)) == pytest.approx(widths, rel=0.06)


def test_textures_differ_and_share_the_plane_equally():
    u, v = np.meshgrid(*[(np.arange(80) + 0.5) / 20] * 2)
    stripes, checks, dots = (texture(u, v) > 0 for texture in make_shapes.TEXTURES)
    assert [stripes.mean(), checks.mean(), dots.mean()] == pytest.approx(
        [0.5] * 3, abs=0.03
    )
    assert (stripes == stripes[0]).all() and (stripes[:, 10:] != stripes[:, :-10]).all()
    assert (checks == checks.T).all() and (checks[:, 10:] != checks[:, :-10]).all()
    assert (dots == (np.hypot(u % 1 - 0.5, v % 1 - 0.5) > 0.4)).all()


def test_classes_are_balanced_and_colours_do_not_tell_them():
    # Nearest class mean of the colours' mean and spread: fitted on one half of the
    # scenes, it is hardly better than guessing on the other.
    halves = []
    for half in range(2):
        scenes = [draw_scene(default_rng([half, i]), (128, 160)) for i in range(70)]
        features = [
            np.r_[image[on_top == k].mean(0), image[on_top == k].std(0)]
            for image, on_top, labels in scenes
            for k in range(1, len(labels) + 1)
        ]
        halves.append((np.array(features), np.concatenate([s[-1] for s in scenes])))
    (features, labels), (unseen, expected) = halves
    assert np.bincount(labels) / len(labels) == pytest.approx([1 / 3] * 3, abs=0.07)
    centres = np.stack([features[labels == k].mean(0) for k in range(3)])
    assert np.ptp(centres, axis=0).max() < 20  # of 255
    guess = ((unseen[:, None] - centres) ** 2).sum(-1).argmin(1)
    assert np.mean(guess == expected) < 0.45


# The command


@pytest.mark.parametrize('layout', LAYOUTS)
def test_files_depend_on_the_parameters_alone(
    roots, layout, tmp_path, monkeypatch, capsys
):
    expected = contents(roots / layout)
    make(tmp_path / 'again', layout)
    assert contents(tmp_path / 'again') == expected
    images = {name: data for name, data in expected.items() if name.endswith('.png')}
    assert len(set(images.values())) == len(images)
    make(tmp_path / 'longer', layout, train=8)
    assert images.items() < contents(tmp_path / 'longer').items()
    make(tmp_path / 'other', layout, seed=1)
    assert not {*images.values()} & {*contents(tmp_path / 'other').values()}

    monkeypatch.setattr(make_shapes, 'draw_scene', None)
    make(tmp_path / 'again', layout)
    assert 'again is complete already' in capsys.readouterr().out
    with pytest.raises(SystemExit, match="again holds .*'seed': 0.*, not .*'seed': 1"):
        make(tmp_path / 'again', layout, seed=1)
    assert contents(tmp_path / 'again') == expected


@pytest.mark.parametrize('layout', LAYOUTS)
def test_an_interrupted_run_never_looks_complete(roots, layout, tmp_path, monkeypatch):
    scenes = [scene(layout, 'train', 1)] * (SPLITS['train'] + 1)
    out = tmp_path / 'shapes'
    with monkeypatch.context() as patch:
        draw = Mock(side_effect=[*scenes, KeyboardInterrupt])
        patch.setattr(make_shapes, 'draw_scene', draw)
        with pytest.raises(KeyboardInterrupt):
            make(out, layout)
    assert not out.exists()
    out.mkdir()  # an empty folder is as good as none
    make(out, layout)
    assert contents(out) == contents(roots / layout)
    assert [*tmp_path.iterdir()] == [out]


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / 'photo.png').write_bytes(b'mine')
    for out in (tmp_path, tmp_path / 'photo.png'):
        with pytest.raises(SystemExit, match=f'{out} holds something else, not .*remove'):
            make(out)
    assert contents(tmp_path) == {'photo.png': b'mine'}


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('--train 0', '--train 0: expected 1 or more'),
        ('--val -3', '--val -3: expected 1 or more'),
        ('--size 320 64', r'--size \[320, 64\]: expected 96 or more'),
        ('--seed -1', '--seed -1: expected 0 or more'),
    ],
)
def test_wrong_options(option, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        make_shapes.main(['--out', f'{tmp_path}/shapes', *option.split()])
    assert not any(tmp_path.iterdir())


# The configs, and the files as mmdet, mmseg and mmpretrain read them


@pytest.mark.parametrize('layout', LAYOUTS)
def test_configs_agree_with_the_tool(layout):
    cfg = Config.fromfile(zoo.ROOT / 'configs' / BASES[layout])
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        classes, *palette = loader.dataset.metainfo.values()
        assert classes == ('background', *CLASSES)[layout != 'ade20k' :]
        assert [len(colours) for colours in palette] == [len(classes)] * len(palette)
    height, width = LAYOUTS[layout][2]['size']
    assert cfg.get('image_scale', (width, height)) == (width, height)
    assert cfg.get('image_size', width) == width
    # The command that is shown when the data is missing.
    python, tool, *arguments = cfg.data_help.split('`')[1].split()
    assert (python, zoo.ROOT / tool) == ('python', Path(make_shapes.__file__))
    expected = dict(layout=layout, out=Path(cfg.data_root), seed=0)
    assert make_shapes.parse_args(arguments) == expected


def items(layout, scope, root):
    """The images of both splits, read as those of validation, and what is in them."""
    import_module(f'{scope}.utils').register_all_modules(init_default_scope=False)
    cfg = Config.fromfile(zoo.ROOT / 'configs' / BASES[layout])
    for split, count in SPLITS.items():
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset |= dict(data_root=str(root / layout), pipeline=cfg.test_pipeline)
        evaluator = dict(cfg.val_evaluator)
        if layout == 'coco':
            evaluator['ann_file'] = f'{root}/coco/annotations/instances_{split}.json'
        with DefaultScope.overwrite_default_scope(scope):
            dataset, metric = DATASETS.build(dataset), METRICS.build(evaluator)
        metric.dataset_meta = dataset.metainfo
        assert len(dataset) == count
        for item in dataset:
            sample = item['data_samples']
            image, *truth = scene(layout, split, int(Path(sample.img_path).stem))
            np.testing.assert_array_equal(cv2.imread(sample.img_path), image)
            yield sample, metric, *truth


def test_mmdet_reads_the_data(roots):
    for sample, metric, on_top, labels in items('coco', 'mmdet', roots):
        truth = sample.gt_instances
        assert truth.labels.tolist() == labels
        masks = on_top == np.arange(1, len(labels) + 1)[:, None, None]
        np.testing.assert_array_equal(truth.masks.masks, masks)
        for box, mask in zip(truth.bboxes.tensor.tolist(), masks, strict=True):
            y, x = np.nonzero(mask)
            assert box == [x.min(), y.min(), x.max() + 1, y.max() + 1]
        # The ground truth handed in as predictions.
        predictions = dict(
            bboxes=truth.bboxes.tensor,
            labels=truth.labels,
            scores=truth.labels.new_ones(len(truth)).float(),
            masks=truth.labels.new_tensor(masks).bool(),
        )
        metric.process({}, [sample.to_dict() | dict(pred_instances=predictions)])
    result = metric.evaluate(SPLITS['val'])
    assert result['coco/bbox_mAP'] == result['coco/segm_mAP'] == pytest.approx(1)

    content = json.loads((roots / 'coco/annotations/instances_val.json').read_text())
    assert [category['name'] for category in content['categories']] == list(CLASSES)
    annotations = content['annotations']
    numbers = [annotation['id'] for annotation in annotations]
    assert numbers == [*range(1, len(numbers) + 1)]  # 0 is "no match" in COCO's code
    maps = (scene('coco', 'val', number + 1)[1] for number in range(SPLITS['val']))
    areas = [area for on_top in maps for area in np.bincount(on_top.ravel())[1:]]
    assert [annotation['area'] for annotation in annotations] == areas


def test_mmseg_reads_the_data(roots):
    for sample, metric, on_top, labels in items('ade20k', 'mmseg', roots):
        truth = sample.gt_sem_seg.data
        np.testing.assert_array_equal(truth[0], np.array([-1, *labels])[on_top] + 1)
        metric.process({}, [sample.to_dict() | dict(pred_sem_seg=dict(data=truth))])
    assert metric.evaluate(SPLITS['val'])['mIoU'] == pytest.approx(100)


def test_mmpretrain_reads_the_data(roots):
    for split in SPLITS:
        # The folders number the classes in the order of their names.
        folders = (roots / 'imagenet' / split).iterdir()
        assert sorted(path.name for path in folders) == list(CLASSES)
    for sample, _, _, labels in items('imagenet', 'mmpretrain', roots):
        assert sample.gt_label.tolist() == labels
