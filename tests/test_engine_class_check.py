"""Classes of built data sets, of models, of labels and label maps are compared."""

from pathlib import Path

import cv2
import mmdet
import mmpretrain
import mmseg
import numpy as np
import pytest
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner

from piip_mm.engine import check_classes
from piip_mm.engine.class_check import check_dataset, check_label_map

CONFIGS = Path(__file__).parents[1] / 'configs'
#: How each codebase calls the images below a data set's root.
PREFIXES = dict(mmseg=dict(img_path='', seg_map_path=''), mmdet=dict(img=''))


def build(scope, dataset_type, **options):
    """A data set that has not read its files yet."""
    options = dict(data_root='data', ann_file='', lazy_init=True, pipeline=[]) | options
    if scope in PREFIXES:
        options.setdefault('data_prefix', PREFIXES[scope])
    with DefaultScope.overwrite_default_scope(scope):
        return DATASETS.build(dict(type=dataset_type, **options))


@pytest.mark.parametrize(
    ('scope', 'dataset_type', 'number', 'paths'),
    [
        ('mmdet', 'CocoDataset', 80, ('roi_head.bbox_head.0', 'roi_head.mask_head')),
        ('mmseg', 'ADE20KDataset', 150, ('auxiliary_head.0', 'decode_head')),
        ('mmpretrain', 'ImageNet', 1000, ('head', 'data_preprocessor')),
    ],
)
def test_classes_of_published_data_sets(scope, dataset_type, number, paths):
    # Numbers of classes of other things.
    model = dict(
        rpn_head=dict(num_classes=1),
        backbone=dict(num_classes=7),
        roi_head=dict(bbox_head=[{}]),
        auxiliary_head=[{}],
    )
    cfg = Config(dict(model=model))
    dataset = build(scope, dataset_type)
    right, wrong = (
        {f'model.{path}.num_classes': count for path in paths}
        for count in (number, number + 1)
    )
    cfg.merge_from_dict(right)
    check_dataset(dataset, cfg.model, 'train_dataloader')
    cfg.merge_from_dict(wrong)
    with pytest.raises(ValueError) as error:
        check_dataset(dataset, cfg.model, 'train_dataloader')
    found = ', '.join(f'{path} = {count}' for path, count in wrong.items())
    assert str(error.value).startswith(
        f'{found}, but the data set of train_dataloader ({dataset_type}) has {number} '
        'classes ('
    )
    options = ' '.join(f'{path}={count}' for path, count in right.items())
    assert f'with --cfg-options {options};' in str(error.value)


def test_classes_of_the_config_come_first():
    dataset = build('mmdet', 'CocoDataset', metainfo=dict(classes=('cat', 'dog')))
    message = (
        r'model\.bbox_head\.num_classes = 80, but .* has 2 classes \(cat, dog\)\. '
        r'.*--cfg-options model\.bbox_head\.num_classes=2;'
    )
    with pytest.raises(ValueError, match=message):
        check_dataset(dataset, dict(bbox_head=dict(num_classes=80)), 'loader')


def test_classes_from_a_file(tmp_path):
    (tmp_path / 'names.txt').write_text('a\nb\nc\n')
    metainfo = dict(classes=str(tmp_path / 'names.txt'))
    dataset = build('mmseg', 'BaseSegDataset', metainfo=metainfo)
    with pytest.raises(ValueError, match=r'has 3 classes \(a, b, c\)'):
        check_dataset(dataset, dict(decode_head=dict(num_classes=4)), 'loader')


def test_a_string_is_no_list_of_classes():
    dataset = build('mmdet', 'CocoDataset', metainfo=dict(classes=('cell')))
    message = r"CocoDataset is the string 'cell': expected a list of names, .*\['cell'\]"
    with pytest.raises(ValueError, match=message):
        check_dataset(dataset, dict(bbox_head=dict(num_classes=4)), 'loader')


def test_data_sets_without_known_classes_are_left_out():
    dataset = build('mmseg', 'BaseSegDataset')
    check_dataset(dataset, dict(decode_head=dict(num_classes=4)), 'loader')


def shipped(package, config):
    return Config.fromfile(Path(package.__file__).parent / '.mim/configs' / config)


def test_heads_that_know_things_only():
    cfg = shipped(mmdet, 'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py')
    assert cfg.model.roi_head.bbox_head.num_classes == 80
    dataset = build('mmdet', 'CocoPanopticDataset', data_prefix=dict(img='', seg=''))
    assert len(dataset.metainfo['classes']) == 133
    check_dataset(dataset, cfg.model, 'loader')


def test_heads_on_boundaries():
    """mmseg's STDC has three auxiliary heads; the last one finds boundaries."""
    cfg = shipped(mmseg, 'stdc/stdc1_4xb12-80k_cityscapes-512x1024.py')
    boundaries = cfg.model.auxiliary_head[2]
    assert (boundaries.type, boundaries.num_classes) == ('STDCHead', 2)
    dataset = build('mmseg', 'CityscapesDataset')
    check_dataset(dataset, cfg.model, 'loader')
    cfg.model.auxiliary_head[1].num_classes = 150
    with pytest.raises(ValueError, match=r'^model\.auxiliary_head\.1\.num_classes = 150'):
        check_dataset(dataset, cfg.model, 'loader')
    cfg.model.auxiliary_head[1].num_classes = 19
    cfg.model.decode_head.num_classes = 2
    with pytest.raises(ValueError, match=r'^model\.decode_head\.num_classes = 2, but'):
        check_dataset(dataset, cfg.model, 'loader')


@pytest.mark.parametrize(
    ('package', 'config', 'dataset_type'),
    [
        (mmdet, 'dino/dino-4scale_r50_8xb2-12e_coco.py', 'CocoDataset'),
        (mmdet, 'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', 'CocoDataset'),
        (mmseg, 'point_rend/pointrend_r50_4xb2-80k_cityscapes-512x1024.py', None),
        (mmpretrain, 'resnet/resnet50_8xb256-rsb-a1-600e_in1k.py', 'ImageNet'),
    ],
)
def test_shipped_configs_pass(package, config, dataset_type):
    cfg = shipped(package, config)
    dataset = build(package.__name__, dataset_type or 'CityscapesDataset')
    check_dataset(dataset, cfg.model, 'loader')


# Runs


def runner_of(tmp_path, scope, model, train, **fields):
    """A runner with a small model of the scope."""
    loader = dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=train,
    )
    with DefaultScope.overwrite_default_scope(scope):
        return Runner.from_cfg(
            Config(
                dict(
                    default_scope=scope,
                    work_dir=str(tmp_path / 'work'),
                    model=model,
                    train_dataloader=loader,
                    train_cfg=dict(by_epoch=True, max_epochs=1),
                    optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0)),
                    experiment_name=str(tmp_path),
                    **fields,
                )
            )
        )


def classifier(num_classes):
    return dict(
        type='ImageClassifier',
        backbone=dict(type='LeNet5'),
        head=dict(type='LinearClsHead', in_channels=84, num_classes=num_classes),
    )


def write_folders(root, *names):
    for name in names:
        (root / name).mkdir(parents=True)
        cv2.imwrite(str(root / name / '1.png'), np.zeros((8, 8, 3), np.uint8))


def check(tmp_path, dataset, num_classes, **fields):
    runner = runner_of(tmp_path, 'mmpretrain', classifier(num_classes), dataset, **fields)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        check_classes(runner, 'train')
    return runner


def test_class_folders(tmp_path):
    write_folders(tmp_path / 'data/train', 'cat', 'dog')
    dataset = dict(type='CustomDataset', data_root=str(tmp_path / 'data/train'))
    check(tmp_path / '1', dataset, 2)
    message = r'head\.num_classes = 3, .* train_.*\(CustomD.* 2 classes \(cat, dog\)'
    with pytest.raises(ValueError, match=message):
        check(tmp_path / '2', dataset, 3)
    wrapped = dict(type='RepeatDataset', times=2, dataset=dataset)
    with pytest.raises(ValueError, match=message):
        check(tmp_path / '3', wrapped, 3)
    joined = dict(type='ConcatDataset', datasets=[dataset, wrapped])
    with pytest.raises(ValueError, match=message):
        check(tmp_path / '4', joined, 3)
    # mmpretrain's own check, told as an error of the config.
    with pytest.raises(ValueError) as error:
        check(
            tmp_path / '5',
            dict(dataset, metainfo=dict(classes=list('abcdefgh'))),
            8,
            data_help='Sort the images.',
        )
    assert str(error.value).startswith('train_dataloader: The number of subfolders (2)')
    assert 'number of specified classes (8)' in str(error.value)
    assert str(error.value).endswith('\nSort the images.')


def test_unsorted_images_of_imagenet(tmp_path):
    """The archive of validation images has no folders."""
    root = tmp_path / 'data'
    (root / 'val').mkdir(parents=True)
    (root / 'val/ILSVRC2012_val_00000001.JPEG').touch()
    dataset = dict(type='ImageNet', data_root=str(root), split='val')
    with pytest.raises(ValueError, match=r'subfolders \(0\) .* classes \(1000\)'):
        check(tmp_path / '1', dataset, 1000)
    # mmpretrain takes the labels from this file.
    (root / 'meta').mkdir()
    (root / 'meta/val.txt').write_text('ILSVRC2012_val_00000001.JPEG 65\n')
    check(tmp_path / '2', dataset, 1000)


@pytest.mark.parametrize('wrong', [3, -1])
def test_labels_in_annotation_files(tmp_path, wrong):
    path = tmp_path / 'train.txt'
    dataset = dict(
        type='CustomDataset',
        data_root=str(tmp_path),
        ann_file='train.txt',
        metainfo=dict(classes=list('abc')),
    )
    path.write_text('1.png 0\n2.png 2\n')
    check(tmp_path / '1', dataset, 3)
    path.write_text(f'1.png 0\n2.png {wrong}\n3.png 2\n')
    message = rf'train\.txt has the label\(s\) \[{wrong}\], .* 3 classes: expected 0 to 2'
    with pytest.raises(ValueError, match=message):
        check(tmp_path / '2', dataset, 3)
    # Images without labels have none to check.
    path.write_text('1.png\n2.png\n')
    check(tmp_path / '3', dict(dataset, with_label=False), 3)


def test_only_the_loaders_in_use(tmp_path):
    write_folders(tmp_path / 'data', 'cat', 'dog')
    dataset = dict(type='CustomDataset', data_root=str(tmp_path / 'data'))
    cfg = dict(batch_size=1, dataset=dict(dataset, data_root='none'), num_workers=0)
    runner = check(
        tmp_path / '1',
        dataset,
        2,
        test_dataloader=cfg | dict(sampler=dict(type='DefaultSampler')),
        test_cfg={},
        test_evaluator=dict(type='Accuracy'),
    )
    with (
        DefaultScope.overwrite_default_scope('mmpretrain'),
        pytest.raises(FileNotFoundError, match='none'),
    ):
        check_classes(runner, 'test')


# Label maps


def results(labels, reduced=False):
    return dict(
        gt_seg_map=np.array(labels, np.uint8),
        seg_map_path='maps/a.png',
        reduce_zero_label=reduced,
    )


def test_sound_label_maps_pass():
    found = results([[0, 1, 2], [255, 2, 0]])
    assert check_label_map(found, 3) is found
    check_label_map(results([[0, 9]]), 3, ignore_index=9)


@pytest.mark.parametrize(
    ('labels', 'reduced', 'message'),
    [
        (
            [[0, 3], [7, 7]],
            False,
            r'maps/a\.png has the value\(s\) \[3, 7\] in 3 pixels, which are the labels '
            r'\[3, 7\]; the data set has 3 classes: expected labels below 3, or 255',
        ),
        ([[0, 3]], True, r'value\(s\) \[4\] in 1 pixels, .*\[3\] \(reduce_zero_label\);'),
        (
            np.zeros((4, 5, 3)),
            False,
            r'a\.png has shape \(4, 5, 3\): expected a label',
        ),
    ],
)
def test_labels_that_are_no_classes(labels, reduced, message):
    with pytest.raises(ValueError, match=message):
        check_label_map(results(labels, reduced), 3)


def test_every_segmentation_pipeline_is_checked():
    cfg = Config.fromfile(CONFIGS / 'seg/_base_/datasets/shapes_semantic.py')
    model = ConfigDict(decode_head=dict(num_classes=4))
    for name in ('train', 'val', 'test'):
        dataset = build('mmseg', **as_options(cfg[f'{name}_dataloader'].dataset))
        check_dataset(dataset, model, name)
        steps = dataset.pipeline.transforms
        names = [type(step).__name__ for step in steps]
        assert names.count('partial') == 1
        check = steps[names.index('LoadAnnotations') + 1]
        assert check.func is check_label_map
        assert check.keywords == dict(num_classes=4, ignore_index=255)


def as_options(dataset):
    options = dict(dataset)
    return dict(options, dataset_type=options.pop('type'))
