"""What annotation files in COCO format lose or lack is said before a run."""

import copy
import json
import logging
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from PIL import Image

import piip_mm.engine.coco_check
from piip_mm.engine import check_coco
from piip_mm.engine.coco_check import _coco_datasets
from piip_mm.engine.coco_report import CocoReport

NAMES = ('cat', 'dog')
SQUARE = [[10, 10, 30, 10, 30, 30, 10, 30]]


def coco(num_images=3):
    """Each image has a cat and, except for the first, a dog."""
    images = [
        dict(id=i, file_name=f'{i}.jpg', width=64, height=48)
        for i in range(1, 1 + num_images)
    ]
    pairs = [(i, c) for i in range(1, 1 + num_images) for c in (1, 2) if (i, c) != (1, 2)]
    fields = dict(bbox=[10, 10, 20, 20], area=400, iscrowd=0, segmentation=SQUARE)
    return dict(
        images=images,
        annotations=[
            dict(id=n, image_id=i, category_id=c, **copy.deepcopy(fields))
            for n, (i, c) in enumerate(pairs, 1)
        ],
        categories=[dict(id=i, name=name) for i, name in enumerate(NAMES, 1)],
    )


def write(content, path):
    path.write_text(json.dumps(content))


def loader(test_mode=False, with_mask=False, **options):
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=with_mask),
    ]
    dataset = dict(
        type='CocoDataset',
        data_root='data',
        ann_file='ann.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=NAMES),
        test_mode=test_mode,
        pipeline=pipeline,
    )
    return dict(dataset=dataset | options)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'data/images').mkdir(parents=True)
    for i in range(1, 4):
        cv2.imwrite(f'data/images/{i}.jpg', np.zeros((48, 64, 3), np.uint8))
    write(coco(), Path('data/ann.json'))
    return tmp_path / 'data'


def train_config(**options):
    options.setdefault('filter_cfg', dict(filter_empty_gt=True, min_size=32))
    return Config(dict(default_scope='mmdet', train_dataloader=loader(**options)))


def evaluation_config(metric='bbox', ann_file='data/ann.json', **options):
    evaluator = dict(type='CocoMetric', ann_file=ann_file, metric=metric)
    return Config(
        dict(
            default_scope='mmdet',
            test_dataloader=loader(test_mode=True, **options),
            test_evaluator=evaluator,
        )
    )


@pytest.fixture
def log(monkeypatch):
    """What the check logs: levels and texts."""
    entries = []

    def record(text, logger, level):
        entries.append((logging.getLevelName(level), text))

    monkeypatch.setattr(piip_mm.engine.coco_check, 'print_log', record)
    return entries


def test_a_sound_file(root, log):
    check_coco(train_config(), 'train')
    check_coco(evaluation_config(), 'test')
    text = '3 of 3 images and 5 of 5 annotations are used (cat 3, dog 2)'
    assert log == [
        ('INFO', f'data/ann.json (train_dataloader): {text}'),
        ('INFO', f'data/ann.json (test_dataloader): {text}'),
    ]


def edit(content, part, index, **fields):
    """Set fields of an entry; those set to None are removed."""
    entry = content[part][index] | fields
    content[part][index] = {k: value for k, value in entry.items() if value is not None}


nan, inf = float('nan'), float('inf')

#: Part of the file, index and fields of an entry; text of the error, example.
ERRORS = [
    ('images', 1, dict(id=None), '1 image(s) without id: add what', '2.jpg'),
    ('images', 1, dict(id=[2]), 'image(s) whose id is neither a number', '[2]'),
    ('images', 1, dict(height=None, width=None), 'without height and width: add', '2'),
    ('images', 1, dict(file_name=None), 'image(s) without file_name: add', '2'),
    ('images', 1, dict(file_name=7), 'image(s) whose file_name is not a name', '2'),
    ('images', 1, dict(width='64'), 'width or height is not a positive number', '2'),
    ('images', 1, dict(width=0), 'width or height is not a positive number', '2'),
    ('images', 1, dict(id=1), '1 image(s) with the id of another, which gets', '1'),
    ('annotations', 3, dict(id=2), '1 annotation(s) with the id of another: give', '2'),
    ('annotations', 3, dict(id=None), 'annotation(s) without id: add what', 'None'),
    ('annotations', 3, dict(bbox=None), 'annotation(s) without bbox: add what', '4'),
    ('annotations', 3, dict(area=None), 'area: add what is missing (iscrowd: 0', '4'),
    ('annotations', 3, dict(area='9'), 'whose area is not a finite number', '4'),
    ('annotations', 3, dict(area=nan), 'whose area is not a finite number', '4'),
    ('annotations', 3, dict(bbox=[1, nan, 3, 4]), 'bbox is not four finite numbers', '4'),
    ('annotations', 3, dict(bbox=[1, 2, inf, 4]), 'bbox is not four finite numbers', '4'),
    ('annotations', 3, dict(bbox=[1, 2, 3]), 'bbox is not four finite numbers', '4'),
    ('annotations', 3, dict(bbox='1234'), 'bbox is not four finite numbers', '4'),
    ('annotations', 3, dict(bbox=['1', 2, 3, 4]), 'is not four finite numbers', '4'),
    ('annotations', 3, dict(iscrowd='0'), 'whose iscrowd is neither 0 nor 1', '4'),
    ('annotations', 3, dict(image_id=[1]), 'ids that are neither numbers nor', '4'),
]


@pytest.mark.parametrize(('part', 'index', 'fields', 'text', 'example'), ERRORS)
def test_mistakes_that_stop_or_spoil_a_run(root, part, index, fields, text, example):
    content = coco()
    edit(content, part, index, **fields)
    write(content, root / 'ann.json')
    for cfg, task in ((train_config(), 'train'), (evaluation_config(), 'test')):
        with pytest.raises(ValueError) as error:
            check_coco(cfg, task)
        title, where, *lines = str(error.value).splitlines()
        assert title == 'the annotations cannot be used'
        assert where == f'data/ann.json ({task}_dataloader):'
        assert len(lines) == 1
        assert text in lines[0]
        assert lines[0].startswith('  1 ')
        assert lines[0].endswith(f'(e.g. {example})')


#: Fields of an annotation -> warning.
LOSSES = [
    (
        dict(image_id=99),
        'annotation(s) whose image_id is that of no image ("1" is not 1)',
    ),
    (dict(image_id='2'), 'annotation(s) whose image_id is that of no image'),
    (dict(category_id=9), 'annotation(s) whose category_id is that of no category'),
    (dict(ignore=1), 'annotation(s) with "ignore"'),
    (dict(area=0), 'annotation(s) with an area of 0 or less'),
    (
        dict(bbox=[10, 10, -5, 20]),
        'box(es) less than 1 pixel wide or high (bbox is [x, y',
    ),
    (dict(bbox=[0.1, 0.1, 0.3, 0.3]), 'box(es) less than 1 pixel wide or high'),
    (dict(bbox=[70, 10, 20, 20]), 'box(es) outside the image'),
    (dict(bbox=[10, -30, 20, 20]), 'box(es) outside the image'),
]


@pytest.mark.parametrize(('fields', 'text'), LOSSES)
def test_what_is_left_out(root, fields, text, log):
    content = coco()
    edit(content, 'annotations', 3, **fields)
    write(content, root / 'ann.json')
    for cfg, task in ((train_config(), 'train'), (evaluation_config(), 'test')):
        check_coco(cfg, task)
        level, message = log.pop()
        assert level == 'WARNING'
        summary, line = message.splitlines()
        assert summary == (
            f'data/ann.json ({task}_dataloader): 3 of 3 images and 4 of 5 annotations '
            'are used (cat 2, dog 2)'
        )
        assert line.startswith(f'  1 {text}')
        assert line.endswith('(e.g. 4)')
        is_truth = task == 'test' and 'that of no' not in line
        assert (': left out (e.g.' in line) is not is_truth
        assert ('left out, but the evaluation takes them for ground' in line) is is_truth


def test_counts_are_those_of_mmdet(root):
    content = coco(40)
    for index, (fields, _) in enumerate(LOSSES):
        for offset in range(index + 1):
            edit(content, 'annotations', 8 * index + offset, **fields)
    edit(content, 'annotations', 73, iscrowd=1)
    edit(content, 'annotations', 74, iscrowd=1)
    # An image without objects, and one that is too small.
    content['annotations'] = [
        one for one in content['annotations'] if one['image_id'] != 39
    ]
    content['images'][39]['width'] = 31
    write(content, root / 'ann.json')
    cfg = train_config()
    (dataset,) = _coco_datasets(cfg.train_dataloader)
    options = dict(evaluated=False, with_masks=False)
    report = CocoReport('data/ann.json', dataset, **options)
    assert not report.errors
    lost = sorted(map(len, report.warnings.values()))
    assert lost == [1, 1 + 2, 3, 4, 5, 6 + 7, 8 + 9]
    assert len(report.used) == len(dataset) == 36
    dataset.filter_cfg = dict(filter_empty_gt=True)
    dataset._fully_initialized = False
    report = CocoReport('data/ann.json', dataset, **options)
    found = [dataset.get_data_info(index)['instances'] for index in range(len(dataset))]
    objects = [one for instances in found for one in instances if not one['ignore_flag']]
    labels = Counter(NAMES[one['bbox_label']] for one in objects)
    assert report.counts == labels
    assert len(report.used) == len(dataset) == 37


def lines_of(cfg, task):
    """Lines of the error about the only file."""
    with pytest.raises(ValueError, match='the annotations cannot be used') as error:
        check_coco(cfg, task)
    return str(error.value).splitlines()[2:]


def test_a_field_that_only_the_evaluation_needs(root, log):
    content = coco()
    for annotation in content['annotations']:
        del annotation['iscrowd']
    write(content, root / 'ann.json')
    check_coco(train_config(), 'train')
    assert '5 annotation(s) without iscrowd: taken as 0 (e.g. 1, 2, 3, ...)' in log[0][1]
    (line,) = lines_of(evaluation_config(), 'test')
    assert line.startswith('  5 annotation(s) without iscrowd: add what is missing (isc')
    # Without evaluation nobody reads them.
    cfg = evaluation_config()
    cfg.test_evaluator.format_only = True
    check_coco(cfg, 'test')


def test_ids_of_the_evaluation(root, log):
    content = coco()
    edit(content, 'annotations', 0, id=0)
    edit(content, 'annotations', 1, id='x7')
    write(content, root / 'ann.json')
    check_coco(train_config(), 'train')
    assert log[0][0] == 'INFO'
    (line,) = lines_of(evaluation_config(), 'test')
    assert (
        line
        == '  1 annotation(s) with strings as id, but pycocotools needs numbers (e.g. x7)'
    )
    assert (
        '1 annotation with id 0, which pycocotools takes for "none": start' in log[1][1]
    )


def test_boxes_as_corners_reach_out(root, log):
    content = coco()
    for annotation in content['annotations']:
        annotation['bbox'] = [30, 30, 60, 45]
    write(content, root / 'ann.json')
    check_coco(train_config(), 'train')
    assert '  5 box(es) cut off at the border (bbox is [x, y, width, height]' in log[0][1]


@pytest.mark.parametrize('fields', [dict(iscrowd=1), dict(area=0), dict(image_id='1')])
def test_nothing_to_train_on(root, fields, log):
    content = coco()
    for index in range(5):
        edit(content, 'annotations', index, **fields)
    write(content, root / 'ann.json')
    (line,) = lines_of(train_config(), 'train')
    assert line.startswith('  3 image(s), but nothing to train on, except what is')
    check_coco(evaluation_config(), 'test')
    assert '  3 image(s), but nothing to find in them: metrics will be -1' in log[-1][1]


def test_images_that_are_all_too_small(root):
    (line,) = lines_of(train_config(filter_cfg=dict(min_size=50)), 'train')
    assert line.startswith('  3 image(s), but nothing to train on')


def test_classes_without_objects_and_shared_files(root, log):
    content = coco()
    content['annotations'] = [
        one for one in content['annotations'] if one['id'] in (1, 2)
    ]
    content['images'][1]['file_name'] = '1.jpg'
    write(content, root / 'ann.json')
    check_coco(train_config(), 'train')
    assert '2 of 3 images and 2 of 2 annotations' in log[0][1]
    assert '1 class(es) without anything to train on (e.g. dog)' in log[0][1]
    assert '1 file(s) of several images, each of which has its own' in log[0][1]


def test_test_images_without_annotations(root, log):
    content = coco()
    del content['annotations']
    write(content, root / 'ann.json')
    check_coco(evaluation_config(), 'test')
    assert '3 of 3 images and 0 of 0 annotations are used' in log[0][1]
    with pytest.raises(ValueError, match=r'ann\.json has no annotations; expected'):
        check_coco(train_config(), 'train')


@pytest.mark.parametrize(
    ('content', 'text'),
    [
        ([1], 'ann.json is a list; expected a COCO annotation file with images, annot'),
        (dict(annotations=[{}]), 'has no images and no categories; expected a COCO'),
        (dict(coco(), images={'1': {}}), 'images is not a list of dicts; expected'),
        (dict(coco(), annotations=[[1]]), 'annotations is not a list of dicts'),
        (dict(coco(), categories=[dict(id=1)]), "category {'id': 1}: expected a number"),
        (dict(coco(), categories=[dict(id=1, name=7)]), 'a string as name'),
        (dict(coco(), categories=[dict(name='cat')]), 'expected a number as id'),
        (
            dict(coco(), categories=[dict(id=1, name=name) for name in NAMES]),
            'names a category twice: ids [1, 1]',
        ),
        (
            dict(coco(), categories=[dict(id=i, name='cat') for i in (1, 2)]),
            "names a category twice: names ['cat', 'cat']",
        ),
    ],
)
def test_other_files(root, content, text):
    write(content, root / 'ann.json')
    for cfg, task in ((train_config(), 'train'), (evaluation_config(), 'test')):
        with pytest.raises(ValueError) as error:
            check_coco(cfg, task)
        assert text in str(error.value)
        assert str(error.value).endswith(f'({task}_dataloader)')


@pytest.mark.parametrize(
    ('classes', 'text'),
    [
        (
            ('dog', 'cat'),
            '2 classes in another order than in the file; set metainfo=',
        ),
        (
            ('cat', 'cow'),
            '1 class(es) that are no category of the file; set metainfo',
        ),
        (None, '79 class(es) that are no category of the file;'),
    ],
)
def test_classes(root, classes, text):
    content = coco()
    content['categories'][1]['name'] = 'dog' if classes else 'hound'
    write(content, root / 'ann.json')
    metainfo = classes and dict(classes=classes)
    (line,) = lines_of(train_config(metainfo=metainfo), 'train')
    assert line.startswith(f'  {text}')
    assert (
        f'to these names, in this order: cat, {"dog" if classes else "hound"} (e' in line
    )


def test_some_of_the_categories(root, log):
    check_coco(train_config(metainfo=dict(classes=['dog'])), 'train')
    assert '2 of 3 images and 2 of 5 annotations are used (dog 2)' in log[0][1]
    assert log[0][0] == 'INFO'


# Masks


RLE = dict(size=[48, 64], counts=[100, 48 * 64 - 100])


@pytest.mark.parametrize('mask', [SQUARE, RLE, dict(RLE, counts='abc')])
def test_sound_masks(root, mask, log):
    content = coco()
    edit(content, 'annotations', 3, segmentation=mask)
    write(content, root / 'ann.json')
    check_coco(train_config(with_mask=True), 'train')
    check_coco(evaluation_config('segm'), 'test')
    assert [level for level, _ in log] == ['INFO', 'INFO']


@pytest.mark.parametrize(
    ('mask', 'text'),
    [
        (None, 'annotation(s) without segmentation: add it, or use a config for boxes'),
        ([], 'annotation(s) without segmentation: add it'),
        (SQUARE[0], 'segmentation(s) that are not lists of polygons [[x1, y1, x2'),
        ([[1, 1, nan, 1, 5, 5]], 'segmentation(s) that are not lists of polygons'),
        ('abc', 'segmentation(s) that are not lists of polygons'),
        (dict(RLE, size=[64, 48]), 'segmentation(s) whose counts or size are not those'),
        (dict(RLE, counts=[100]), 'segmentation(s) whose counts or size are not those'),
        (dict(size=[48, 64]), 'segmentation(s) whose counts or size are not those'),
    ],
)
def test_wrong_masks(root, mask, text, log):
    content = coco()
    edit(content, 'annotations', 3, segmentation=mask)
    write(content, root / 'ann.json')
    for cfg, task in (
        (train_config(with_mask=True), 'train'),
        (evaluation_config(['bbox', 'segm']), 'test'),
    ):
        (line,) = lines_of(cfg, task)
        assert line.startswith(f'  1 {text}')
        assert line.endswith('(e.g. 4)')
    check_coco(train_config(), 'train')
    check_coco(evaluation_config(), 'test')


def test_polygons_of_two_points(root, log):
    content = coco()
    line = [1, 1, 5, 1]
    edit(content, 'annotations', 2, segmentation=[*SQUARE, line])
    edit(content, 'annotations', 3, segmentation=[line])
    edit(content, 'annotations', 4, segmentation=[[*SQUARE[0], 1]])
    write(content, root / 'ann.json')
    check_coco(train_config(with_mask=True), 'train')
    summary, *lines = log[0][1].splitlines()
    assert '3 of 5 annotations' in summary
    assert lines == [
        '  1 annotation(s) that lose polygons with less than 3 points (e.g. 3)',
        '  2 annotation(s) whose polygons have less than 3 points: left out (e.g. 4, 5)',
    ]
    (line,) = lines_of(evaluation_config('segm'), 'test')
    assert line == (
        '  1 segmentation(s) whose first polygon has less than 3 points: remove it '
        '(e.g. 4)'
    )


# Files


def test_the_metric_reads_another_file(root, tmp_path, log):
    content = coco()
    content['images'] = content['images'][:2]
    content['categories'] = content['categories'][::-1]
    write(content, tmp_path / 'other.json')
    with pytest.raises(ValueError) as error:
        check_coco(evaluation_config(ann_file='other.json'), 'test')
    _, where, *lines = str(error.value).splitlines()
    assert where == 'other.json (test_dataloader):'
    assert lines[0].startswith('  2 classes in another order than in the file')
    assert lines[1] == '  1 image(s) of data/ann.json that this file lacks (e.g. 3)'
    assert len(log) == 2


def image_line(root, cfg=None):
    (line,) = lines_of(cfg or train_config(), 'train')
    return line


def rename(root, pattern):
    content = coco()
    for image in content['images']:
        image['file_name'] = pattern.format(image['file_name'])
    write(content, root / 'ann.json')


def test_images_that_are_not_there(root):
    (root / 'images/2.jpg').unlink()
    assert image_line(root) == (
        '  1 image(s) not found in data/images/: correct data_prefix (custom.train_img, '
        'custom.val_img) or file_name (e.g. 2.jpg)'
    )


@pytest.mark.parametrize(
    ('pattern', 'prefix', 'fix'),
    [
        ('images/{}', 'images/', "images/1.jpg is in data; set data_prefix=dict(img='')"),
        ('{}', '', "1.jpg is in data/images; set data_prefix=dict(img='images/') of the"),
        (
            'train/{}',
            'images/',
            '1.jpg is there without train/; remove it from file_',
        ),
    ],
)
def test_likely_fixes(root, pattern, prefix, fix):
    rename(root, pattern)
    line = image_line(root, train_config(data_prefix=dict(img=prefix)))
    assert line.startswith('  3 image(s) not found in data')
    assert f': {fix}' in line


@pytest.mark.parametrize('name', ['1.JPG', '1'])
def test_other_endings(root, name):
    content = coco()
    content['images'][0]['file_name'] = name
    write(content, root / 'ann.json')
    assert f': 1.jpg is there; correct file_name (e.g. {name})' in image_line(root)


def test_images_that_are_not_used_may_be_missing(root):
    content = coco()
    content['images'].append(dict(id=4, file_name='4.jpg', width=64, height=48))
    write(content, root / 'ann.json')
    check_coco(train_config(), 'train')
    assert '4.jpg' in image_line(root, train_config(filter_cfg=None))


def test_damaged_and_resized_images(root):
    (root / 'images/1.jpg').write_bytes(b'no image')
    cv2.imwrite('data/images/3.jpg', np.zeros((24, 32, 3), np.uint8))
    lines = lines_of(train_config(), 'train')
    assert lines[0].startswith('  1 image(s) that cannot be read (e.g. 1.jpg: ')
    assert lines[1].startswith(
        '  1 of the images read are not of the width and height in'
    )
    assert lines[1].endswith('(e.g. 3.jpg: 64 x 48 in the file, loaded 32 x 24)')


@pytest.mark.parametrize('number', [15, 16, 17, 100])
def test_a_few_images_are_read(root, monkeypatch, number):
    write(coco(number), root / 'ann.json')
    for i in range(4, number + 1):
        (root / f'images/{i}.jpg').hardlink_to(root / 'images/1.jpg')
    read = []
    load = LoadImageFromFile.transform
    monkeypatch.setattr(
        LoadImageFromFile,
        'transform',
        lambda self, results: read.append(results['img_path']) or load(self, results),
    )
    check_coco(train_config(), 'train')
    assert 9 <= len(read) <= 16
    assert len(set(read)) == len(read)


def turn(path, orientation, size=(64, 48)):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new('RGB', size).save(path, exif=exif)


def test_images_that_exif_turns(root, log):
    turn(root / 'images/2.jpg', 6)
    line = image_line(root)
    assert line.startswith('  1 of the images read are turned by their EXIF orientation')
    assert "color_type='color_ignore_orientation' of LoadImageFromFile in all" in line
    assert line.endswith('(e.g. 2.jpg: 64 x 48 in the file, loaded 48 x 64)')
    cfg = train_config()
    cfg.train_dataloader.dataset.pipeline[0].color_type = 'color_ignore_orientation'
    check_coco(cfg, 'train')
    # The turned image was annotated.
    turn(root / 'images/2.jpg', 8, size=(48, 64))
    check_coco(train_config(), 'train')
    assert {level for level, _ in log[-2:]} == {'INFO'}
    assert '2.jpg: 64 x 48 in the file, loaded 48 x 64' in image_line(root, cfg)


@pytest.mark.parametrize(('orientation', 'size'), [(3, (64, 48)), (2, (64, 48))])
def test_images_whose_size_does_not_tell(root, orientation, size, log):
    turn(root / 'images/2.jpg', orientation, size)
    check_coco(train_config(), 'train')
    assert log[0][0] == 'WARNING'
    assert '  1 of the images read are turned or mirrored by their EXIF' in log[0][1]


# What is checked


def test_all_mistakes_in_one_message(root):
    content = coco()
    edit(content, 'annotations', 0, area=None)
    write(content, root / 'ann.json')
    write([], root / 'val.json')
    cfg = train_config()
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=cfg.train_dataloader.dataset
    )
    cfg.val_dataloader = loader(test_mode=True, ann_file='val.json')
    with pytest.raises(ValueError) as error:
        check_coco(cfg, 'train')
    lines = str(error.value).splitlines()
    assert lines[1] == 'data/ann.json (train_dataloader):'
    assert lines[2].startswith('  1 annotation(s) without area')
    assert lines[3].startswith('data/val.json is a list; expected')
    assert len(lines) == 4


def test_own_formats_are_left_alone(root):
    class OwnDataset(CocoDataset):
        def parse_data_info(self, raw_data_info):
            return {}

    class OwnClasses(CocoDataset):
        METAINFO = dict(classes=('cow',))

    write([], root / 'ann.json')
    for kind in (OwnDataset, 'BaseDetDataset', 'CocoPanopticDataset', 'LVISV1Dataset'):
        assert _coco_datasets(dict(loader()['dataset'], type=kind)) == []
    for kind in (OwnClasses, 'mmdet.CocoDataset', 'DeepFashionDataset'):
        assert len(_coco_datasets(dict(loader()['dataset'], type=kind))) == 1
    for options in (
        dict(backend_args=dict(backend='petrel')),
        dict(data_root='s3://bucket/'),
    ):
        assert _coco_datasets(loader(**options)) == []
    check_coco(Config(dict(default_scope='mmseg')), 'train')


def test_only_the_first_process_checks(root, monkeypatch):
    write([], root / 'ann.json')
    monkeypatch.setenv('RANK', '1')
    check_coco(train_config(), 'train')
    monkeypatch.setenv('RANK', '0')
    with pytest.raises(ValueError, match='is a list'):
        check_coco(train_config(), 'train')
