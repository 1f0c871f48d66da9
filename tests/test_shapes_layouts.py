"""The shapes in the layouts of ADE20K and ImageNet, and mmseg and mmpretrain on them."""

from __future__ import annotations

from pathlib import Path

import cv2
import mmengine
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, DefaultScope

from piip_mm.datasets import (
    LAYOUTS,
    SEMANTIC_METAINFO,
    SHAPES_METAINFO,
    draw_scene,
    shapes,
)
from piip_mm.datasets.shapes import generate_shapes

CONFIGS = Path(__file__).parents[1] / 'configs'
SEMANTIC = CONFIGS / 'seg/_base_/datasets/shapes_semantic.py'
CLASSIFICATION = CONFIGS / 'cls/_base_/datasets/shapes_classification.py'
SMALL = dict(train=6, val=3, size=(96, 128))


@pytest.fixture(scope='module')
def roots(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data')
    for layout in ('ade20k', 'imagenet'):
        assert generate_shapes(folder / layout, layout=layout, **SMALL)
    return folder


def _scene(layout, split, number):
    rng = np.random.default_rng([0, ['train', 'val'].index(split), number])
    form = LAYOUTS[layout]
    return draw_scene(rng, SMALL['size'], form.num_objects, form.shares)


def _names(folder):
    return sorted(path.name for path in folder.rglob('*.png'))


def _build(config, root, scope):
    """The training and the validation data set."""
    with DefaultScope.overwrite_default_scope(scope):
        return [
            DATASETS.build(config[f'{split}_dataloader'].dataset | dict(data_root=root))
            for split in ('train', 'val')
        ]


# Files


@pytest.mark.parametrize(
    ('split', 'folder'), [('train', 'training'), ('val', 'validation')]
)
def test_label_maps_hold_one_more_than_the_class(roots, split, folder):
    images = roots / 'ade20k/images' / folder
    maps = roots / 'ade20k/annotations' / folder
    expected = [f'{number:06d}.png' for number in range(1, SMALL[split] + 1)]
    assert _names(images) == _names(maps) == expected
    seen = set()
    for number, name in enumerate(expected, start=1):
        image, instances = _scene('ade20k', split, number)
        np.testing.assert_array_equal(cv2.imread(str(images / name)), image)
        labels = cv2.imread(str(maps / name), cv2.IMREAD_UNCHANGED)
        assert labels.dtype == np.uint8 and labels.shape == SMALL['size']
        for instance in instances:
            name = SHAPES_METAINFO['classes'][instance.label]
            value = 1 + SEMANTIC_METAINFO['classes'].index(name)
            assert (labels[instance.mask] == value).all()
        shapes_area = sum(instance.mask.sum() for instance in instances)
        assert (labels == 1).sum() == labels.size - shapes_area
        seen |= set(np.unique(labels).tolist())
    assert seen == {1, 2, 3, 4}


@pytest.mark.parametrize('split', ['train', 'val'])
def test_images_lie_in_the_folder_of_their_class(roots, split):
    root = roots / 'imagenet' / split
    # mmpretrain numbers the folders in the order of their names.
    assert sorted(path.name for path in root.iterdir()) == list(
        SHAPES_METAINFO['classes']
    )
    numbers = range(1, SMALL[split] + 1)
    assert _names(root) == [f'{number:06d}.png' for number in numbers]
    for number in numbers:
        image, (shape,) = _scene('imagenet', split, number)
        name = SHAPES_METAINFO['classes'][shape.label]
        found = cv2.imread(str(root / name / f'{number:06d}.png'))
        np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize('layout', ['ade20k', 'imagenet'])
def test_generation_is_deterministic_and_done_once(roots, layout, tmp_path, monkeypatch):
    def files(root):
        return {
            path.relative_to(root): path.read_bytes()
            for path in root.rglob('*')
            if path.is_file()
        }

    assert generate_shapes(tmp_path / 'again', layout=layout, **SMALL)
    assert files(tmp_path / 'again') == files(roots / layout)
    monkeypatch.setattr(shapes, 'draw_scene', None)
    assert generate_shapes(tmp_path / 'again', layout=layout, **SMALL) is False
    with pytest.raises(FileExistsError, match=rf'layout = {layout}, .*layout = coco'):
        generate_shapes(tmp_path / 'again', train=6, val=3)


@pytest.mark.parametrize('layout', ['ade20k', 'imagenet'])
def test_interrupted_writing_leaves_no_trace(layout, tmp_path, monkeypatch):
    drawn = []

    def interrupted(*args):
        drawn.append(args)
        if len(drawn) == SMALL['train'] + 1:
            raise KeyboardInterrupt
        return draw_scene(*args)

    monkeypatch.setattr(shapes, 'draw_scene', interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate_shapes(tmp_path / 'shapes', layout=layout, **SMALL)
    assert len(drawn) == SMALL['train'] + 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('layout', sorted(LAYOUTS))
def test_command_line_has_defaults_of_each_layout(layout, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shapes.main(['--layout', layout, '--train', '1', '--val', '1', '--seed', '3'])
    root = tmp_path / LAYOUTS[layout].out
    parameters = mmengine.load(root / 'shapes.json')
    height, width = LAYOUTS[layout].size
    assert parameters == dict(
        layout=layout, train=1, val=1, seed=3, size=[height, width], version=1
    )
    assert cv2.imread(str(next(root.rglob('*1.png')))).shape[:2] == (height, width)
    with pytest.raises(SystemExit, match='2'):
        shapes.main(['--layout', 'voc'])
    assert "invalid choice: 'voc'" in capsys.readouterr().err


def test_unknown_layout(tmp_path):
    with pytest.raises(ValueError, match=r"unknown layout 'voc'.*'ade20k', 'coco', 'ima"):
        generate_shapes(tmp_path / 'a', layout='voc')


@pytest.mark.parametrize('size', [(96, 96), (128, 128), (160, 224)])
def test_shapes_to_classify_are_large_and_inside(size):
    form = LAYOUTS['imagenet']
    for seed in range(40):
        rng = np.random.default_rng(seed)
        _, (shape,) = draw_scene(rng, size, form.num_objects, form.shares)
        assert not (shape.mask[[0, -1]].any() or shape.mask[:, [0, -1]].any())
        extents = [np.ptp(np.flatnonzero(shape.mask.any(axis))) + 1 for axis in (0, 1)]
        assert min(extents) >= 0.4 * min(size) - 2
        # Of all shapes of one width the square is the largest.
        assert shape.full_area < (0.65 * min(size) + 1) ** 2 * 1.01


# mmseg and mmpretrain


@pytest.mark.parametrize(
    ('path', 'layout', 'metainfo'),
    [
        (SEMANTIC, 'ade20k', SEMANTIC_METAINFO),
        (CLASSIFICATION, 'imagenet', SHAPES_METAINFO),
    ],
)
def test_configs_agree_with_the_generator(path, layout, metainfo):
    config = Config.fromfile(path)
    assert config.data_root == LAYOUTS[layout].out + '/'
    for loader in (config.train_dataloader, config.val_dataloader):
        found = loader.dataset.metainfo
        assert dict(found) == {key: metainfo[key] for key in found}
    command = f'python -m {shapes.__name__} --layout {layout} --out {config.data_root}'
    assert command[:-1] in config.data_help
    size = config.get('image_size')
    assert size is None or LAYOUTS[layout].size == (size, size)


def test_mmseg_reads_and_evaluates_the_data(roots):
    from mmseg.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    config = Config.fromfile(SEMANTIC)
    config.train_dataloader.dataset.pipeline[2].crop_size = (64, 64)
    train, val = _build(config, str(roots / 'ade20k'), 'mmseg')
    assert (len(train), len(val)) == (SMALL['train'], SMALL['val'])
    assert train.metainfo['classes'] == ('background', 'disc', 'square', 'triangle')
    item = train[0]
    assert item['inputs'].shape == (3, 64, 64)
    assert item['data_samples'].gt_sem_seg.data.shape == (1, 64, 64)

    with DefaultScope.overwrite_default_scope('mmseg'):
        metric = METRICS.build(config.val_evaluator)
    metric.dataset_meta = val.metainfo
    for index in range(len(val)):
        sample = val[index]['data_samples']
        _, instances = _scene('ade20k', 'val', index + 1)
        labels = sample.gt_sem_seg.data[0].numpy()
        assert labels.max() <= 3
        for instance in instances:
            assert (labels[instance.mask] == instance.label + 1).all()
        # The ground truth handed in as prediction.
        perfect = dict(pred_sem_seg=dict(data=sample.gt_sem_seg.data))
        metric.process({}, [sample.to_dict() | perfect])
    assert metric.evaluate(len(val))['mIoU'] == pytest.approx(100)


def test_mmpretrain_reads_the_data(roots):
    from mmpretrain.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    config = Config.fromfile(CLASSIFICATION)
    train, val = _build(config, str(roots / 'imagenet'), 'mmpretrain')
    assert (len(train), len(val)) == (SMALL['train'], SMALL['val'])
    assert train[0]['inputs'].shape == (3, 128, 128)
    for index in range(len(val)):
        sample = val[index]['data_samples']
        _, (shape,) = _scene('imagenet', 'val', int(Path(sample.img_path).stem))
        assert sample.gt_label.item() == shape.label


# The data sets of the papers


@pytest.mark.parametrize(
    ('name', 'size'), [('ade20k', 512), ('ade20k_896', 896), ('ade20k_1120', 1120)]
)
def test_ade20k_is_scaled_and_cropped_as_published(name, size):
    config = Config.fromfile(CONFIGS / f'seg/_base_/datasets/{name}.py')
    _, _, resize, crop, flip, distort, _ = config.train_dataloader.dataset.pipeline
    assert (resize.scale, resize.ratio_range) == ((4 * size, size), (0.5, 2.0))
    assert (crop.crop_size, crop.cat_max_ratio) == ((size, size), 0.75)
    assert config.crop_size == (size, size)
    assert (flip.prob, distort.type) == (0.5, 'PhotoMetricDistortion')
    assert config.train_dataloader.batch_size == 2

    from mmseg.registry import TRANSFORMS

    for loader in (config.val_dataloader, config.test_dataloader):
        resize = TRANSFORMS.build(loader.dataset.pipeline[1])
        # Wider than 2048:512, and still the short edge is that of a window.
        image = np.zeros((100, 900, 3), np.uint8)
        assert resize(dict(img=image))['img_shape'] == (size, 9 * size)
        assert loader.dataset.pipeline[2].type == 'LoadAnnotations'


@pytest.mark.parametrize(
    ('name', 'size'), [('imagenet', 384), ('imagenet_368', 368), ('imagenet_320', 320)]
)
def test_imagenet_is_augmented_and_cropped_as_published(name, size):
    from mmpretrain.registry import TRANSFORMS

    config = Config.fromfile(CONFIGS / f'cls/_base_/datasets/{name}.py')
    assert config.train_dataloader.batch_size == 128
    assert config.train_dataloader.drop_last is True
    names = [step.type for step in config.train_dataloader.dataset.pipeline]
    assert 'RandAugment' in names and 'RandomErasing' not in names
    # Brightness tells the place.
    image = np.add.outer(np.arange(96), np.arange(150)).astype(np.uint8)
    image = np.repeat(image[..., None], 3, axis=-1)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        for loader in ('train', 'val', 'test'):
            results = dict(img=image)
            for step in config[f'{loader}_dataloader'].dataset.pipeline[1:-1]:
                results = TRANSFORMS.build(step)(results)
            assert results['img'].shape == (size, size, 3)
            if loader != 'train':
                # The crop is as high as the image: nothing is lost above and below.
                small = cv2.resize(results['img'], (96, 96), interpolation=cv2.INTER_AREA)
                assert np.abs(small - image[:, 27:123].astype(float)).max() < 2
    assert config.val_evaluator.topk == (1, 5)
