"""`custom` spreads over the config; what is wrong with it is said."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config, DictAction

from piip_mm.engine import expand_custom_data

CONFIGS = Path(__file__).parents[1] / 'configs'
NAMES = ('RBC', 'WBC', 'Platelets')


def write_coco(path, names=NAMES, images=1, annotations=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = dict(
        images=[dict(id=i, file_name=f'{i}.jpg') for i in range(images)],
        annotations=[dict(id=i, image_id=0) for i in range(annotations)],
        # Ids are no order: the place in the file is.
        categories=[dict(id=9 - i, name=name) for i, name in enumerate(names)],
    )
    path.write_text(json.dumps(content))


@pytest.fixture
def root(tmp_path):
    write_coco(tmp_path / 'annotations/train.json')
    write_coco(tmp_path / 'annotations/val.json')
    return tmp_path


def load(root, **custom):
    cfg = Config.fromfile(CONFIGS / 'det/piip_tiny_fasterrcnn_custom.py')
    cfg.merge_from_dict({'custom': {'data_root': str(root), **custom}})
    return cfg


def test_paths_and_classes_reach_every_place(root):
    cfg = load(root, train_img='a/', val_img='b/')
    expand_custom_data(cfg)
    for name, split, image in (
        ('train', 'train', 'a/'),
        ('val', 'val', 'b/'),
        ('test', 'val', 'b/'),
    ):
        dataset = cfg[f'{name}_dataloader'].dataset
        assert dataset.data_root == str(root)
        assert dataset.ann_file == f'annotations/{split}.json'
        assert dataset.data_prefix == dict(img=image)
        assert dataset.metainfo == dict(classes=list(NAMES))
    for name in ('val', 'test'):
        expected = str(root / 'annotations/val.json')
        assert cfg[f'{name}_evaluator'].ann_file == expected
    assert cfg.model.roi_head.bbox_head.num_classes == 3
    assert cfg.custom.classes == list(NAMES)


def test_twice_is_as_once(root):
    cfg = load(root, classes=['WBC'])
    expand_custom_data(cfg)
    once = cfg.to_dict()
    expand_custom_data(cfg)
    assert cfg.to_dict() == once


def test_saved_config_is_tested_without_training_data(root):
    cfg = load(root)
    expand_custom_data(cfg)
    (root / 'annotations/train.json').unlink()
    expand_custom_data(cfg)
    assert cfg.model.roi_head.bbox_head.num_classes == 3


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ("('RBC','WBC','Platelets')", ['RBC', 'WBC', 'Platelets']),
        ('RBC,WBC,Platelets', ['RBC', 'WBC', 'Platelets']),
        ('[RBC,WBC]', ['RBC', 'WBC']),
        ('WBC', ['WBC']),
        # In the order of the file, by which mmdet numbers the labels.
        ('Platelets,RBC', ['RBC', 'Platelets']),
    ],
)
def test_classes_from_the_command_line(root, text, expected):
    cfg = load(root)
    cfg.merge_from_dict({'custom.classes': DictAction._parse_iterable(text)})
    expand_custom_data(cfg)
    assert cfg.train_dataloader.dataset.metainfo.classes == expected
    assert cfg.model.roi_head.bbox_head.num_classes == len(expected)


def test_number_as_class(root):
    for split in ('train', 'val'):
        write_coco(root / f'annotations/{split}.json', names=('7', '8'))
    cfg = load(root)
    cfg.merge_from_dict({'custom.classes': DictAction._parse_iterable('8')})
    expand_custom_data(cfg)
    assert cfg.custom.classes == ['8']


def test_all_heads_and_wrapped_data_sets(root):
    cfg = load(root)
    cfg.model.roi_head.bbox_head = [dict(num_classes=80), dict(num_classes=80)]
    cfg.model.roi_head.mask_head = dict(num_classes=80)
    cfg.model.rpn_head.num_classes = 1
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=cfg.train_dataloader.dataset
    )
    expand_custom_data(cfg)
    heads = [*cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head]
    assert [head.num_classes for head in heads] == [3, 3, 3]
    assert cfg.model.rpn_head.num_classes == 1
    assert cfg.train_dataloader.dataset.dataset.data_root == str(root)


def test_config_without_custom_is_left_alone():
    cfg = Config(dict(model=dict(head=dict(num_classes=80))))
    expand_custom_data(cfg)
    assert cfg.model.head.num_classes == 80


@pytest.mark.parametrize(
    ('custom', 'message'),
    [
        (
            dict(classes=['RBC', 'cat']),
            r"custom\.classes \['RBC', 'cat'\].*'Platelets'.*not there: \['cat'\]",
        ),
        (dict(classes=['RBC', 'RBC']), 'expected different names'),
        (dict(classes=[]), 'expected different names'),
        (dict(img_dir='x'), r"unknown fields \['img_dir'\].*train_ann"),
        (dict(train_ann=5), 'custom.train_ann=5: expected a path'),
        (dict(val_img=None), 'custom.val_img=None: expected a path'),
        (dict(val_ann=None), r"fields without a value \['val_ann'\]"),
    ],
)
def test_wrong_values(root, custom, message):
    with pytest.raises(ValueError, match=message):
        expand_custom_data(load(root, **custom))


def test_a_list_instead_of_fields():
    with pytest.raises(ValueError, match=r'custom=\[5\]: expected a dict of options'):
        expand_custom_data(Config(dict(custom=[5])))


def test_missing_files_are_listed_with_the_fix(root):
    (root / 'annotations/train.json').unlink()
    with pytest.raises(FileNotFoundError, match=r'train\.json') as error:
        expand_custom_data(load(root))
    assert str(root / 'images') in str(error.value)
    assert 'custom.train_ann=FILE' in str(error.value)
    assert 'val.json' not in str(error.value).split('Say where')[0]


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(images=0), 'has no images; expected a COCO annotation file'),
        (dict(annotations=0), 'has no annotations'),
        (dict(names=()), 'has no categories'),
        (dict(names=('a', 'a')), 'names a category twice'),
        (dict(names=(7,)), "category {'id': 9, 'name': 7}: expected a number as id and"),
    ],
)
def test_empty_annotation_files(root, kwargs, message):
    write_coco(root / 'annotations/train.json', **kwargs)
    with pytest.raises(ValueError, match=message):
        expand_custom_data(load(root))


def test_no_json(root):
    (root / 'annotations/train.json').write_text('<xml>')
    with pytest.raises(ValueError, match=r'train\.json is not a JSON file'):
        expand_custom_data(load(root))


def test_files_must_agree_on_the_order(root):
    write_coco(root / 'annotations/val.json', names=NAMES[::-1])
    with pytest.raises(ValueError, match='same categories in the same order'):
        expand_custom_data(load(root))


def test_several_data_sets(root):
    cfg = load(root)
    leaf = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[leaf, leaf])
    with pytest.raises(ValueError, match='train_dataloader joins 2'):
        expand_custom_data(cfg)
