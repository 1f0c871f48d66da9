"""Missing files are found before a run, all of them at once."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmpretrain.datasets import CustomDataset

from piip_mm.engine import check_data, find_missing


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data/images').mkdir(parents=True)
    (tmp_path / 'data/images/1.jpg').touch()
    (tmp_path / 'data/train.json').touch()
    return tmp_path


def config(**fields):
    dataset = dict(
        data_root='data/', ann_file='train.json', data_prefix=dict(img='images/')
    )
    return Config(dict(model=dict(), train_dataloader=dict(dataset=dataset), **fields))


def test_nothing_missing(root):
    assert find_missing(config(), 'train') == {}
    check_data(config(), 'train')


def test_all_missing_paths_in_one_message(root):
    cfg = config(data_help='Run `get-data`.', load_from='lost.pth')
    cfg.val_dataloader = dict(
        dataset=dict(
            data_root='data',
            ann_file='val.json',
            data_prefix=dict(img='none', seg='maps/'),
        )
    )
    with pytest.raises(FileNotFoundError, match='^5 path') as error:
        cfg.val_evaluator = dict(type='CocoMetric', ann_file='other/val.json')
        check_data(cfg, 'train')
    message = str(error.value)
    for path in (
        'data/val.json',
        'data/none',
        'data/maps',
        'other/val.json',
        'lost.pth',
    ):
        assert f'  {path}\n' in message
        assert str(root / path) in message
    assert 'annotation file of val_dataloader' in message
    assert 'directory (seg) of val_dataloader' in message
    assert 'checkpoint to load' in message
    assert 'Run `get-data`.' in message


def test_advice_without_data_help(root):
    cfg = config()
    cfg.train_dataloader.dataset.ann_file = 'gone.json'
    with pytest.raises(FileNotFoundError, match="'data_root', 'ann_file'"):
        check_data(cfg, 'train')


def test_wrapped_data_sets(root):
    cfg = config()
    gone = {**cfg.train_dataloader.dataset, 'ann_file': 'gone.json'}
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset',
        dataset=dict(type='ConcatDataset', datasets=[cfg.train_dataloader.dataset, gone]),
    )
    assert list(find_missing(cfg, 'train')) == ['data/gone.json']


def test_only_the_parts_in_use(root):
    cfg = config(test_dataloader=dict(dataset=dict(ann_file='test.json')))
    cfg.test_evaluator = [dict(type='A'), dict(type='B', ann_file='eval.json')]
    assert find_missing(cfg, 'train') == {}
    assert set(find_missing(cfg, 'test')) == {'test.json', 'eval.json'}


def test_absolute_paths_leave_the_root(root, tmp_path):
    cfg = config()
    cfg.train_dataloader.dataset.ann_file = str(tmp_path / 'far.json')
    assert list(find_missing(cfg, 'train')) == [str(tmp_path / 'far.json')]


def test_remote_files_are_not_checked(root):
    cfg = config(load_from='https://example.org/model.pth')
    cfg.train_dataloader.dataset.update(data_root='s3://bucket/coco/')
    cfg.val_dataloader = dict(
        dataset=dict(ann_file='gone.json', backend_args=dict(backend='petrel'))
    )
    cfg.model.init_cfg = dict(type='Pretrained', checkpoint='torchvision://resnet50')
    assert find_missing(cfg, 'train') == {}


def test_pretrained_weights_of_any_part(root):
    def init(path):
        return dict(type='Pretrained', checkpoint=path)

    cfg = config()
    cfg.model = dict(
        init_cfg=[dict(type='Normal', layer='Linear'), init('a.pth')],
        backbone=dict(branches=[dict(init_cfg=init('b.pth')), dict(init_cfg=None)]),
    )
    assert list(find_missing(cfg, 'train')) == ['a.pth', 'b.pth']
    with pytest.raises(FileNotFoundError, match=r'pretrained weights') as error:
        check_data(cfg, 'train')
    assert 'data_root' not in str(error.value)
    # A checkpoint is loaded over them.
    assert find_missing(cfg, 'test') == {}


def test_unknown_task():
    with pytest.raises(ValueError, match="unknown task 'val'.*'train'"):
        find_missing(Config({}), 'val')


# Segmentation and classification


BASES = Path(__file__).parents[1] / 'configs'


@pytest.mark.parametrize(
    ('base', 'paths', 'help_text'),
    [
        (
            'seg/_base_/datasets/ade20k.py',
            [
                f'data/ade/ADEChallengeData2016/{kind}/{split}'
                for split in ('training', 'validation')
                for kind in ('images', 'annotations')
            ],
            'http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip',
        ),
        (
            'cls/_base_/datasets/imagenet.py',
            ['data/imagenet/train', 'data/imagenet/val'],
            'register at https://image-net.org',
        ),
        (
            'seg/_base_/datasets/shapes_semantic.py',
            [
                f'data/shapes_seg/{kind}/{split}'
                for split in ('training', 'validation')
                for kind in ('images', 'annotations')
            ],
            '`python tools/misc/make_shapes.py --layout ade20k --out data/shapes_seg`',
        ),
        (
            'cls/_base_/datasets/shapes_classification.py',
            ['data/shapes_cls/train', 'data/shapes_cls/val'],
            '`python tools/misc/make_shapes.py --layout imagenet --out data/shapes_cls`',
        ),
    ],
)
def test_missing_data_sets_of_the_bases(root, base, paths, help_text):
    cfg = Config.fromfile(BASES / base)
    cfg.model = {}
    cfg.default_scope = {'d': 'mmdet', 's': 'mmseg', 'c': 'mmpretrain'}[base[0]]
    assert list(find_missing(cfg, 'train')) == paths
    with pytest.raises(FileNotFoundError) as error:
        check_data(cfg, 'train')
    assert all(f'expected at {root}/{path}' in str(error.value) for path in paths)
    assert help_text in str(error.value)
    for path in paths:
        (root / path).mkdir(parents=True)
        (root / path / 'some').touch()
    check_data(cfg, 'train')


class ClassFolders(CustomDataset):
    """A data set of a user."""


@pytest.mark.parametrize(
    'kind',
    [
        'CustomDataset',
        'mmpretrain.CustomDataset',
        'mmpretrain.datasets.custom.CustomDataset',
        CustomDataset,
        ClassFolders,
    ],
)
def test_folders_of_classes_may_be_the_root(root, kind):
    cfg = Config(dict(model={}, default_scope='mmpretrain'))
    dataset = dict(type=kind, data_root='data/images')
    cfg.train_dataloader = dict(dataset=dataset)
    assert find_missing(cfg, 'train') == {}
    cfg.train_dataloader.dataset.data_root = 'data/none'
    assert list(find_missing(cfg, 'train')) == ['data/none']


def test_an_empty_folder_is_as_good_as_none(tmp_path):
    dataset = dict(type='ADE20KDataset', data_root=str(tmp_path), data_prefix={})
    dataset['data_prefix'] = dict(img_path='images')
    (tmp_path / 'images').mkdir()
    cfg = Config(dict(test_dataloader=dict(dataset=dataset)))
    with pytest.raises(FileNotFoundError, match='do not exist or are empty'):
        check_data(cfg, 'test')
    (tmp_path / 'images/1.jpg').touch()
    check_data(cfg, 'test')
