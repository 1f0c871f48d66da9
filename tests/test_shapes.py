"""The embedded example data set: the drawing, the files, and mmdet reading them."""

from __future__ import annotations

from pathlib import Path

import cv2
import mmengine
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from pycocotools import mask as mask_utils

from piip_mm.datasets import LAYOUTS, SHAPES_METAINFO, draw_scene, shapes
from piip_mm.datasets.scene import MIN_EXTENT, MIN_VISIBLE
from piip_mm.datasets.shapes import generate_shapes

CONFIG = Path(__file__).parents[1] / 'configs/det/_base_/datasets/shapes_instance.py'
SMALL = dict(train=5, val=3, size=(128, 160))


@pytest.fixture(scope='module')
def scenes():
    return [draw_scene(np.random.default_rng([7, i])) for i in range(120)]


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'shapes'
    assert generate_shapes(root, **SMALL)
    return root


def _xywh(mask):
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [cols[0], rows[0], np.ptp(cols) + 1, np.ptp(rows) + 1]


def _files(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob('*')
        if path.is_file()
    }


# The drawing


def test_scene_is_an_image_with_disjoint_masks(scenes):
    for image, instances in scenes:
        assert image.shape == (256, 320, 3)
        assert image.dtype == np.uint8
        assert 3 <= len(instances) <= 8
        assert sum(i.mask.astype(int) for i in instances).max() == 1
        for instance in instances:
            assert instance.mask.shape == (256, 320)
            visible = instance.mask.sum() / instance.full_area
            assert MIN_VISIBLE <= visible <= 1


def test_uncovered_shapes_have_the_least_extent(scenes):
    extents = [
        min(_xywh(i.mask)[2:])
        for _, instances in scenes
        for i in instances
        if i.mask.sum() == i.full_area
    ]
    assert MIN_EXTENT <= min(extents) < 32
    assert 80 < max(extents) <= 140


def test_shapes_overlap_and_classes_are_balanced(scenes):
    instances = [i for _, found in scenes for i in found]
    covered = [i.mask.sum() < i.full_area for i in instances]
    assert 0.15 < np.mean(covered) < 0.6
    share = np.bincount([i.label for i in instances]) / len(instances)
    assert len(share) == len(SHAPES_METAINFO['classes'])
    assert share == pytest.approx(1 / 3, abs=0.06)


def test_a_further_shape_covers_the_earlier_ones():
    covering = 0
    for seed in range(20):
        before, three = draw_scene(np.random.default_rng(seed), num_objects=(3, 3))
        after, four = draw_scene(np.random.default_rng(seed), num_objects=(4, 4))
        top = four[3].mask
        for earlier, later in zip(three, four, strict=False):
            assert later.label == earlier.label
            assert later.full_area == earlier.full_area
            np.testing.assert_array_equal(later.mask, earlier.mask & ~top)
            covering += (earlier.mask & top).any()
        changed = (before != after).any(-1)
        assert changed[top].mean() > 0.95
        # The shadow reaches 12.5 pixels from a side, 25 from a corner of a triangle.
        around = cv2.dilate(top.astype(np.uint8), np.ones((53, 53), np.uint8))
        assert not changed[around == 0].any()
    assert covering > 0


def test_outlines_are_disc_square_and_triangle():
    # Area over that of the least enclosing circle; drawn alone, nothing is covered.
    expected = (1.0, 2 / np.pi, 3 * 3**0.5 / (4 * np.pi))
    seen = set()
    for seed in range(30):
        _, (shape,) = draw_scene(np.random.default_rng(seed), num_objects=(1, 1))
        points = np.argwhere(shape.mask).astype(np.float32)
        _, radius = cv2.minEnclosingCircle(points)
        ratio = shape.full_area / (np.pi * radius**2)
        assert ratio == pytest.approx(expected[shape.label], abs=0.04)
        seen.add(shape.label)
    assert seen == {0, 1, 2}


def test_colours_do_not_tell_the_classes(scenes):
    # Nearest class mean of the colours' mean and spread: fitted on one half of the
    # scenes, it is hardly better than guessing on the other.
    def features(part):
        pairs = [
            (np.r_[image[i.mask].mean(0), image[i.mask].std(0)], i.label)
            for image, instances in part
            for i in instances
        ]
        x, label = zip(*pairs, strict=True)
        return np.array(x), np.array(label)

    x, label = features(scenes[::2])
    centres = np.stack([x[label == k].mean(0) for k in range(3)])
    assert np.ptp(centres, axis=0).max() < 15  # of 255
    x, label = features(scenes[1::2])
    guess = ((x[:, None] - centres) ** 2).sum(-1).argmin(1)
    assert np.mean(guess == label) < 0.45


def test_scene_depends_on_the_generator_alone():
    first, second, other = (
        draw_scene(np.random.default_rng(s), (96, 130)) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first[0], second[0])
    for a, b in zip(first[1], second[1], strict=True):
        assert a.label == b.label
        np.testing.assert_array_equal(a.mask, b.mask)
    assert (first[0] != other[0]).mean() > 0.5


def test_scene_errors():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r'\(64, 320\).*at least 96 pixels each way'):
        draw_scene(rng, (64, 320))
    for numbers in ((5, 3), (0, 3)):
        with pytest.raises(ValueError, match=r'num_objects = .*1 <= least <= greatest'):
            draw_scene(rng, num_objects=numbers)
    for shares in ((0.5, 0.4), (0.1, 0.7)):
        with pytest.raises(ValueError, match=r'shares = .*<= greatest <= 0\.65'):
            draw_scene(rng, shares=shares)


# The files


@pytest.mark.parametrize('split', ['train', 'val'])
def test_masks_boxes_and_areas_agree(data_root, split):
    coco = mmengine.load(data_root / 'annotations' / f'instances_{split}.json')
    assert [c['name'] for c in coco['categories']] == list(SHAPES_METAINFO['classes'])
    assert len(coco['images']) == SMALL[split]
    images = {image['id']: image for image in coco['images']}
    for image in coco['images']:
        pixels = cv2.imread(str(data_root / split / image['file_name']))
        assert pixels.shape == (image['height'], image['width'], 3) == (128, 160, 3)
    ids = [a['id'] for a in coco['annotations']]
    assert len(set(ids)) == len(ids)
    assert min(ids) > 0  # COCO's evaluation takes 0 for "no match"
    assert {a['image_id'] for a in coco['annotations']} == set(images)
    for annotation in coco['annotations']:
        mask = mask_utils.decode(annotation['segmentation'])
        assert mask.shape == (128, 160)
        assert annotation['area'] == mask.sum() > 0
        assert annotation['bbox'] == _xywh(mask)
        assert annotation['iscrowd'] == 0


def test_files_are_deterministic_and_streams_disjoint(data_root, tmp_path):
    assert generate_shapes(tmp_path / 'again', **SMALL)
    expected = _files(data_root)
    assert _files(tmp_path / 'again') == expected

    assert generate_shapes(tmp_path / 'longer', **SMALL | dict(train=7))
    longer = _files(tmp_path / 'longer')
    images = [name for name in expected if name.endswith('.png')]
    assert all(longer[name] == expected[name] for name in images)
    assert len({expected[name] for name in images}) == SMALL['train'] + SMALL['val']

    assert generate_shapes(tmp_path / 'other', **SMALL, seed=1)
    other = _files(tmp_path / 'other')
    assert not any(other[name] == expected[name] for name in images)


def test_second_call_does_nothing(data_root, monkeypatch):
    def fail(*args):
        raise AssertionError('drew again')

    monkeypatch.setattr(shapes, 'draw_scene', fail)
    assert generate_shapes(data_root, **SMALL) is False


def test_other_parameters_are_refused_and_force_redraws(data_root, tmp_path):
    root = tmp_path / 'shapes'
    generate_shapes(root, train=1, val=1, size=(96, 96))
    before = _files(root)
    message = (
        r'shapes was drawn with train = 1, size = \[96, 96\], but train = 2, '
        r'size = \[128, 96\] is asked for; .*--force'
    )
    with pytest.raises(FileExistsError, match=message):
        generate_shapes(root, train=2, val=1, size=(128, 96))
    assert _files(root) == before

    assert generate_shapes(root, **SMALL, force=True)
    assert _files(root) == _files(data_root)
    assert [path.name for path in tmp_path.iterdir()] == ['shapes']


def test_foreign_folders_are_never_deleted(tmp_path):
    (tmp_path / 'photo.png').write_bytes(b'mine')
    with pytest.raises(FileExistsError, match=r'holds no shapes\.json.*left as it is'):
        generate_shapes(tmp_path, train=1, val=1, force=True)
    assert _files(tmp_path) == {'photo.png': b'mine'}


@pytest.mark.parametrize('force', [False, True])
def test_interrupted_writing_leaves_no_trace(tmp_path, monkeypatch, force):
    root = tmp_path / 'shapes'
    if force:
        generate_shapes(root, train=1, val=1, size=(96, 96))
    before = _files(tmp_path)
    drawn = []

    def interrupted(*args):
        drawn.append(args)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return draw_scene(*args)

    monkeypatch.setattr(shapes, 'draw_scene', interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate_shapes(root, **SMALL, force=force)
    assert len(drawn) == 3
    assert _files(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == (['shapes'] if force else [])


def test_command_line(tmp_path, capsys):
    root = tmp_path / 'data' / 'shapes'
    arguments = ['--out', str(root), '--train', '1', '--val', '1', '--size']
    shapes.main([*arguments, '96', '112'])
    assert cv2.imread(str(root / 'val' / '000001.png')).shape == (96, 112, 3)
    for wrong, message in (
        ([*arguments, '96', '120'], r'drawn with size = [96, 112], but size = [96, 12'),
        ([*arguments, '96', '20'], 'size (H, W) = (96, 20): a scene needs at least 96'),
        (['--out', str(root / 'a'), '--val', '0'], 'val = 0: expected at least one'),
        (['--out', str(root / 'a'), '--seed', '-1'], 'seed = -1: expected 0 or a'),
    ):
        with pytest.raises(SystemExit, match='2'):
            shapes.main(wrong)
        assert message in capsys.readouterr().err


# mmdet


def test_config_agrees_with_the_generator():
    config = Config.fromfile(CONFIG)
    height, width = LAYOUTS['coco'].size
    assert config.image_scale == (width, height)
    for loader in (config.train_dataloader, config.val_dataloader):
        metainfo = loader.dataset.metainfo
        assert metainfo.classes == SHAPES_METAINFO['classes']
        assert metainfo.palette == SHAPES_METAINFO['palette']
    assert f'python -m {shapes.__name__} --out {config.data_root[:-1]}' in (
        config.data_help
    )


def test_mmdet_reads_and_evaluates_the_data(data_root):
    from mmdet.registry import DATASETS, METRICS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    config = Config.fromfile(CONFIG)
    with DefaultScope.overwrite_default_scope('mmdet'):
        train, val = (
            DATASETS.build(loader.dataset | dict(data_root=str(data_root)))
            for loader in (config.train_dataloader, config.val_dataloader)
        )
        metric = METRICS.build(
            config.val_evaluator
            | dict(ann_file=str(data_root / 'annotations/instances_val.json'))
        )
    assert (len(train), len(val)) == (SMALL['train'], SMALL['val'])
    item = train[0]
    assert item['inputs'].shape == (3, 256, 320)
    assert item['data_samples'].gt_instances.masks.masks.shape[1:] == (256, 320)

    # The ground truth handed in as predictions is perfect for COCO's evaluation.
    metric.dataset_meta = val.metainfo
    for index in range(len(val)):
        sample = val[index]['data_samples']
        rng = np.random.default_rng([0, 1, sample.img_id])
        image, instances = draw_scene(rng, SMALL['size'])
        np.testing.assert_array_equal(cv2.imread(sample.img_path), image)
        truth = sample.gt_instances
        assert truth.labels.tolist() == [i.label for i in instances]
        masks = np.stack([i.mask for i in instances])
        np.testing.assert_array_equal(truth.masks.masks, masks)
        predictions = dict(
            bboxes=truth.bboxes.tensor,
            labels=truth.labels,
            scores=truth.labels.new_ones(len(truth)).float(),
            masks=truth.labels.new_tensor(masks).bool(),
        )
        metric.process({}, [sample.to_dict() | dict(pred_instances=predictions)])
    result = metric.evaluate(len(val))
    assert result['coco/bbox_mAP'] == pytest.approx(1)
    assert result['coco/segm_mAP'] == pytest.approx(1)
