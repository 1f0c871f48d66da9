"""Classes of data set, model, folders and label maps are compared."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from piip_mm.engine import CheckLabelMap, check_classes

BASES = Path(__file__).parents[1] / 'configs'


def config(scope, dataset, model, **fields):
    loader = dict(dataset=dict(data_root='data', **dataset))
    return Config(
        dict(default_scope=scope, model=model, train_dataloader=loader, **fields)
    )


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
    cfg = config(scope, dict(type=dataset_type, pipeline=[]), model)
    cfg.train_dataloader.dataset.data_root = 'none'
    right, wrong = (
        {f'model.{path}.num_classes': count for path in paths}
        for count in (number, number + 1)
    )
    cfg.merge_from_dict(right)
    check_classes(cfg, 'train')
    cfg.merge_from_dict(wrong)
    with pytest.raises(ValueError) as error:
        check_classes(cfg, 'train')
    found = ', '.join(f'{path} = {count}' for path, count in wrong.items())
    assert str(error.value).startswith(
        f'{found}, but the data set of train_dataloader ({dataset_type}) has {number} '
        'classes ('
    )
    options = ' '.join(f'{path}={count}' for path, count in right.items())
    assert f'with --cfg-options {options};' in str(error.value)


def test_classes_of_the_config_come_first():
    dataset = dict(type='CocoDataset', metainfo=dict(classes=('cat', 'dog')))
    model = dict(bbox_head=dict(num_classes=80))
    message = (
        r'model\.bbox_head\.num_classes = 80, but .* has 2 classes \(cat, dog\)\. '
        r'.*--cfg-options model\.bbox_head\.num_classes=2;'
    )
    with pytest.raises(ValueError, match=message):
        check_classes(config('mmdet', dataset, model), 'train')
    wrapped = config('mmdet', dict(type='RepeatDataset', dataset=dataset), model)
    with pytest.raises(ValueError, match='cat, dog'):
        check_classes(wrapped, 'train')
    # Not in use.
    check_classes(wrapped, 'test')


def test_classes_from_a_file(tmp_path):
    (tmp_path / 'names.txt').write_text('a\nb\nc\n')
    metainfo = dict(classes=str(tmp_path / 'names.txt'))
    dataset = dict(type='BaseSegDataset', metainfo=metainfo)
    with pytest.raises(ValueError, match=r'has 3 classes \(a, b, c\)'):
        check_classes(
            config('mmseg', dataset, dict(decode_head=dict(num_classes=4))), 'train'
        )


def test_data_sets_without_known_classes_are_left_out():
    model = dict(decode_head=dict(num_classes=4))
    check_classes(config('mmseg', dict(type='BaseSegDataset'), model), 'train')
    panoptic = dict(roi_head=dict(bbox_head=dict(num_classes=80)))
    check_classes(config('mmdet', dict(type='CocoPanopticDataset'), panoptic), 'train')


def test_class_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('cat', 'dog'):
        (tmp_path / 'data/train' / name).mkdir(parents=True)
    model = dict(head=dict(num_classes=2))
    dataset = dict(type='CustomDataset', data_prefix='train')
    check_classes(config('mmpretrain', dataset, model), 'train')
    with pytest.raises(ValueError, match=r'num_classes = 3, .* 2 classes \(cat, dog\)'):
        check_classes(
            config('mmpretrain', dataset, dict(head=dict(num_classes=3))), 'train'
        )

    dataset['metainfo'] = dict(classes=list('abcdefgh'))
    message = (
        r'data/train of train_dataloader has 2 folders \(cat, dog\), expected one for '
        r'each of the 8 classes \(a, b, c, d, e, \.\.\.\)'
    )
    with pytest.raises(ValueError, match=message):
        check_classes(config('mmpretrain', dataset, model), 'train')
    # Labels from a file need no folders.
    dataset['ann_file'] = 'train.txt'
    model['head']['num_classes'] = 8
    check_classes(config('mmpretrain', dataset, model), 'train')


def test_unsorted_images_of_imagenet(tmp_path, monkeypatch):
    """The archive of validation images has no folders."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data/val').mkdir(parents=True)
    (tmp_path / 'data/val/ILSVRC2012_val_00000001.JPEG').touch()
    dataset = dict(type='ImageNet', split='val')
    cfg = config('mmpretrain', dataset, dict(head=dict(num_classes=1000)))
    message = r'data/val .* has 0 folders \(none\), .* 1000 classes \(tench, '
    with pytest.raises(ValueError, match=message):
        check_classes(cfg, 'train')
    # mmpretrain takes the labels from this file.
    (tmp_path / 'data/meta').mkdir()
    (tmp_path / 'data/meta/val.txt').write_text('ILSVRC2012_val_00000001.JPEG 65\n')
    check_classes(cfg, 'train')


# Label maps


def results(labels, reduced=False):
    return dict(
        gt_seg_map=np.array(labels, np.uint8),
        seg_map_path='maps/a.png',
        reduce_zero_label=reduced,
    )


def test_sound_label_maps_pass():
    check = CheckLabelMap(num_classes=3)
    found = results([[0, 1, 2], [255, 2, 0]])
    assert check(found) is found
    CheckLabelMap(num_classes=3, ignore_index=9)(results([[0, 9]]))


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
        CheckLabelMap(num_classes=3)(results(labels, reduced))


def test_every_segmentation_pipeline_is_checked():
    cfg = Config.fromfile(BASES / 'seg/_base_/datasets/shapes_semantic.py')
    cfg.merge_from_dict(
        dict(default_scope='mmseg', model=dict(decode_head=dict(num_classes=4)))
    )
    check_classes(cfg, 'train')
    check_classes(cfg, 'test')
    for name in ('train', 'val', 'test'):
        steps = cfg[f'{name}_dataloader'].dataset.pipeline
        names = [step['type'] for step in steps]
        assert names[names.index('LoadAnnotations') + 1] == 'CheckLabelMap'
        assert names.count('CheckLabelMap') == 1
        check = steps[names.index('CheckLabelMap')]
        assert (check['num_classes'], check['ignore_index']) == (4, 255)
