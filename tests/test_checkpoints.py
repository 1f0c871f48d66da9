"""Complete checkpoints of the published code, loaded as they are."""

import copy
import logging
import re
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path
from pickle import UnpicklingError
from uuid import uuid4

import golden
import pytest
import torch
import zoo
from mmdet.models.layers.transformer.utils import MLP
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import BaseLoop, Runner, get_priority, load_checkpoint
from torch.utils.data import DataLoader

from piip_mm.engine import PublishedCheckpointHook
from piip_mm.engine.checkpoint_hook import CheckpointError
from piip_mm.engine.launch import user_errors
from piip_mm.engine.options import (
    accept_published_checkpoints,
    checkpoint_names,
    skip_pretrained,
)
from piip_mm.published import migrate_config
from piip_mm.published.checkpoints import convert_published, is_published
from piip_mm.weights.report import compare
from piip_mm.weights.state_dict import unwrap_state_dict

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def scope(no_default_scope):
    init_default_scope('mmdet')


@pytest.fixture(scope='module')
def case():
    return golden.load('p1_three_branch_deit')


def detector(case):
    cfg = Config.fromfile(ROOT / 'configs/det/piip_tiny_maskrcnn_shapes.py')
    backbone = migrate_config(case.kind, case.kwargs)
    backbone['_delete_'] = True
    neck = dict(in_channels=[64] * 4)
    rpn = dict(anchor_generator=dict(strides=[4, 8, 16, 32]))
    cfg.merge_from_dict(dict(model=dict(backbone=backbone, neck=neck, rpn_head=rpn)))
    return MODELS.build(cfg.model)


def published(case, model):
    """State dict as the published code saves it, with random neck and heads."""
    own = model.state_dict()
    tensors = {f'backbone.{name}': value for name, value in case.state_dict.items()}
    heads = {n: torch.rand_like(v) for n, v in own.items() if 'backbone.' not in n}
    return OrderedDict({**tensors, **heads})


def runner_of(model, tmp_path, strict=True, **kwargs):
    hook = dict(type='PublishedCheckpointHook', strict=strict, **kwargs)
    return Runner(
        model,
        str(tmp_path / 'work'),
        custom_hooks=[hook],
        experiment_name=uuid4().hex,
    )


class Data(list):
    """A data set that names its classes, or none."""

    def __init__(self, classes):
        super().__init__([0])
        self.metainfo = {} if classes is None else {'classes': classes}


class Loop(BaseLoop):
    """Holds a data set."""

    def run(self):
        pass


def load(checkpoint, model, tmp_path, resume=False, classes=None, **kwargs):
    """Load a file as MMEngine's runner does, for data with these classes."""
    path = tmp_path / 'released.pth'
    torch.save(checkpoint, path)
    runner = runner_of(model, tmp_path, **kwargs)
    runner._resume = resume
    loop = Loop(runner, DataLoader(Data(classes)))
    setattr(runner, '_train_loop' if resume else '_test_loop', loop)
    runner.load_checkpoint(str(path))


def check_outputs(case, model):
    with torch.no_grad():
        outputs = model.eval().backbone(case.image)
    for output, recorded in zip(outputs, case.outputs, strict=True):
        assert recorded.deviation(output) < golden.OUTPUT_TOLERANCE


@pytest.mark.parametrize('container', ['state_dict', 'module', None])
def test_containers(case, tmp_path, container):
    model = detector(case)
    tensors = published(case, model)
    # DeepSpeed files contain more than tensors.
    others = {'meta': {'CLASSES': ('a',)}, 'optimizer': None, 'skipped_steps': 0}
    wrapped = {container: tensors, **others} if container else tensors
    load(wrapped, model, tmp_path)
    check_outputs(case, model)
    name = 'roi_head.bbox_head.fc_cls.weight'
    torch.testing.assert_close(model.state_dict()[name], tensors[name])


@pytest.mark.parametrize('container', ['state_dict', 'module'])
@pytest.mark.parametrize('is_published', [True, False])
def test_prefix_of_distributed_training(case, tmp_path, container, is_published):
    model = detector(case)
    own = {name: value + 1 for name, value in model.state_dict().items()}
    tensors = published(case, model) if is_published else own
    prefixed = {f'module.{name}': value for name, value in tensors.items()}
    load({container: prefixed}, model, tmp_path)
    name = 'neck.lateral_convs.0.conv.weight'
    torch.testing.assert_close(model.state_dict()[name], tensors[name])
    if is_published:
        check_outputs(case, model)


def test_parts_that_the_model_goes_without(case, tmp_path):
    model = detector(case)
    tensors = published(case, model)
    model.roi_head.mask_head = None
    with pytest.raises(ValueError, match='left over:\n  roi_head.mask_head'):
        load({'state_dict': tensors}, model, tmp_path)
    load({'state_dict': tensors}, model, tmp_path, ignore=['roi_head.mask_head.'])
    check_outputs(case, model)


CELLS = ('RBC', 'WBC', 'Platelets')


@pytest.mark.parametrize('resume', [False, True])
@pytest.mark.parametrize(
    'meta',
    [
        dict(dataset_meta=dict(classes=CELLS, palette=[])),
        dict(dataset_meta=dict(CLASSES=CELLS)),
        dict(CLASSES=list(CELLS)),
    ],
)
def test_classes_of_checkpoint_and_data(meta, resume, tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(1, 1))
    file = dict(state_dict=model.state_dict(), meta=meta)
    run = dict(model=model, tmp_path=tmp_path, strict=not resume, resume=resume)
    name = 'train_dataloader' if resume else 'test_dataloader'
    load(file, classes=list(CELLS), **run)
    load(file, classes=None, **run)
    with pytest.raises(CheckpointError) as error:
        load(file, classes=('RBC', 'Platelets', 'WBC'), **run)
    assert str(error.value).startswith(
        f'checkpoint: the classes of the data set of {name} (Data) are in '
        'another order than those of the checkpoint. From label 1 on,\n'
        "  the checkpoint (3 classes) has 'WBC', 'Platelets'\n"
        "  the data set (3 classes) has 'Platelets', 'WBC'\n"
        'Use data with the classes of the checkpoint in the same order: set metainfo='
    )
    message = (
        r'are other than .* From label 2 on,\n.*\(3 classes\) has .Platelets.\n'
        r'.*\(2 classes\) has none\n'
    )
    with pytest.raises(CheckpointError, match=message):
        load(file, classes=('RBC', 'WBC'), **run)
    # Fine-tuning.
    load(file, classes=('cat',), **run | dict(strict=False, resume=False))


@pytest.mark.parametrize('meta', [None, {}, dict(CLASSES=None), dict(epoch=1)])
def test_a_checkpoint_without_names_is_said(meta, tmp_path, capfd):
    model = torch.nn.Linear(1, 1)
    file = dict(state_dict=model.state_dict(), meta=meta)
    load(file, model, tmp_path, classes=CELLS)
    log = ''.join(capfd.readouterr())
    assert log.count('The checkpoint does not name its classes;') == 1


@pytest.mark.parametrize('content', [[1], {'state_dict': {}}, {'state_dict': {'a': 1}}])
def test_a_file_without_weights(case, tmp_path, content):
    with pytest.raises(ValueError, match='the file holds no weights: expected names and'):
        unwrap_state_dict(content)


def test_code_in_a_checkpoint_is_not_executed(case, tmp_path):
    path = tmp_path / 'code.pth'
    torch.save({'state_dict': {'a': torch.zeros(1)}, 'code': logging.Formatter()}, path)
    with pytest.raises(UnpicklingError, match='Weights only load failed'):
        runner_of(detector(case), tmp_path).load_checkpoint(str(path))
    with pytest.raises(SystemExit, match=r'code.pth .* not executed'), user_errors():
        checkpoint_names(str(path))


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'optimizer': {}}, r"c.pth: the file holds no weights.*found the keys \['optim"),
        (
            {'state_dict': {'a': torch.ones(1), 'b': None}},
            r"c.pth: entry 'b' of type Non",
        ),
        (None, r'c.pth is damaged or incomplete'),
    ],
)
def test_a_checkpoint_is_read_before_the_run(tmp_path, content, message):
    path = tmp_path / 'c.pth'
    path.write_bytes(b'')
    if content is not None:
        torch.save(content, path)
    for resume in (True, False):
        cfg = Config(dict(model={}, load_from=str(path), resume=resume))
        with pytest.raises(ValueError, match=message):
            skip_pretrained(cfg)
    assert checkpoint_names(str(tmp_path / 'gone.pth')) is None
    assert checkpoint_names('s3://bucket/c.pth') is None


def test_published_files_hold_nothing_to_resume_from(case, tmp_path):
    model = detector(case)
    torch.save({'module': published(case, model)}, tmp_path / 'released.pth')
    runner = runner_of(model, tmp_path)
    runner._resume, runner._load_from = True, str(tmp_path / 'released.pth')
    message = r'released.pth: .* no state to resume from; .* load_from=FILE'
    with pytest.raises(ValueError, match=message):
        runner.load_or_resume()
    # The latest checkpoint.
    runner._load_from = None
    (tmp_path / 'work/last_checkpoint').write_text(str(tmp_path / 'released.pth'))
    runner._has_loaded = False
    with pytest.raises(ValueError, match=message):
        runner.load_or_resume()


def test_comes_before_other_hooks():
    assert get_priority(PublishedCheckpointHook.priority) < get_priority('NORMAL')


def test_a_published_backbone_has_to_fit_also_for_fine_tuning(case, tmp_path):
    model = detector(case)
    tensors = published(case, model)
    del tensors['backbone.branch2.blocks.1.gamma_1']
    with pytest.raises(ValueError, match='1 missing:\n  backbone.branches.1.blocks.1'):
        load({'state_dict': tensors}, model, tmp_path, strict=False)


def test_bfloat16_mixed_with_float32(case, tmp_path):
    model = detector(case)
    tensors = published(case, model)
    for index, name in enumerate(tensors):
        if index % 2:
            tensors[name] = tensors[name].bfloat16()
    load({'module': tensors}, model, tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    for name in ('neck.lateral_convs.0.conv.weight', 'neck.lateral_convs.0.conv.bias'):
        torch.testing.assert_close(model.state_dict()[name], tensors[name].float())


def test_a_file_that_does_not_fit_stops(case, tmp_path):
    model = detector(case)
    tensors = published(case, model)
    del tensors['backbone.branch2.blocks.1.gamma_1']
    tensors['backbone.branch1.blocks.0.extra'] = torch.zeros(1)
    tensors['backbone.branch1.pos_embed'] = torch.zeros(1, 9, 64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match='does not fit the model') as error:
        load({'state_dict': tensors}, model, tmp_path)
    message = str(error.value)
    assert '1 missing:\n  backbone.branches.1.blocks.1.ls1.gamma' in message
    assert '1 left over:' in message and 'blocks.0.extra' in message
    assert 'pos_embed: (1, 9, 64) in the file, (1, 16, 64) here' in message
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_fine_tuning_on_other_classes_is_allowed(case, tmp_path):
    model = detector(case)
    tensors = published(case, model)
    name = 'roi_head.bbox_head.fc_cls.weight'
    tensors[name] = torch.zeros(81, tensors[name].shape[1])
    load({'state_dict': tensors}, model, tmp_path, strict=False)
    check_outputs(case, model)


def test_dropped_parameters_are_reported(case, tmp_path):
    """Some files contain DINO's stride-4 upsampler, which nothing reads."""
    dino = dict(case.kwargs, is_dino=True)
    backbone = MODELS.build(migrate_config(case.kind, dino))
    model = torch.nn.ModuleDict({'backbone': backbone})
    model.backbone = backbone
    state_dict = {f'backbone.{name}': value for name, value in case.state_dict.items()}
    converted, dropped = convert_published(state_dict, model)
    assert len(dropped) == 6 and all('.fpn1.' in name for name in dropped)
    assert not compare(converted, model).misfits


@pytest.mark.parametrize('is_published', [True, False])
@pytest.mark.parametrize('through_hook', [True, False])
def test_checkpoints_with_other_values(case, tmp_path, is_published, through_hook):
    model = detector(case)
    tensors = published(case, model) if is_published else model.state_dict()
    prefix = 'backbone.branch3.' if is_published else 'backbone.branches.0.'
    message = r'branches.0.pos_embed has 1 of 800 values NaN or infinite'
    pos_embed = tensors[f'{prefix}pos_embed'].clone()
    pos_embed[0, 1, 2] = float('nan')
    weight = tensors[f'{prefix}blocks.0.mlp.fc1.weight'].char()
    faulty = {
        f'{prefix}pos_embed': pos_embed,
        f'{prefix}blocks.0.mlp.fc1.weight': weight,
    }
    tensors = dict(tensors) | faulty
    if through_hook:
        with pytest.raises(CheckpointError, match=message) as error:
            load({'state_dict': tensors}, model, tmp_path)
    else:
        with pytest.raises(ValueError, match=message) as error:
            model.load_state_dict(tensors)
    assert '2 tensors cannot be loaded' in str(error.value)
    assert 'fc1.weight is torch.int8 in the file, torch.float32 here' in str(error.value)


def test_our_own_checkpoints_stay_as_they_are(case, tmp_path):
    model = detector(case)
    saved = {name: value + 1 for name, value in model.state_dict().items()}
    assert not is_published(saved)
    load({'state_dict': saved}, model, tmp_path)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, saved[name])
    del saved['neck.lateral_convs.0.conv.weight']
    with pytest.raises(
        ValueError, match='1 missing:\n  neck.lateral_convs.0.conv.weight'
    ):
        load({'state_dict': saved}, model, tmp_path)


def backbone_of(case):
    """The migrated network, its random weights, and what the published file holds."""
    backbone = MODELS.build(migrate_config(case.kind, case.kwargs)).eval()
    return backbone, OrderedDict(case.state_dict)


@pytest.mark.parametrize('strict', [True, False])
def test_the_backbone_itself_translates(case, strict):
    backbone, tensors = backbone_of(case)
    names = set(tensors)
    backbone.load_state_dict(tensors, strict=strict)
    assert set(tensors) == names, 'the state dict of the caller is not changed'
    with torch.no_grad():
        outputs = backbone(case.image)
    for output, recorded in zip(outputs, case.outputs, strict=True):
        assert recorded.deviation(output) < golden.OUTPUT_TOLERANCE


def test_a_detector_loads_a_released_file_without_the_tools(case, tmp_path):
    """As mmdet's ``init_detector`` and other scripts load it."""
    model = detector(case)
    torch.save({'state_dict': published(case, model)}, tmp_path / 'released.pth')
    load_checkpoint(model, str(tmp_path / 'released.pth'), map_location='cpu')
    check_outputs(case, model)


def test_a_backbone_alone_is_never_half_loaded(case):
    backbone, tensors = backbone_of(case)
    del tensors['branch2.blocks.1.gamma_1'], tensors['w1']
    tensors['branch1.pos_embed'] = torch.zeros(1, 9, 64)
    with pytest.raises(ValueError, match='do not fit the PIIP of the config') as error:
        backbone.load_state_dict(tensors, strict=False)
    assert '2 missing:\n  branches.1.blocks.1.ls1.gamma' in str(error.value)
    assert 'pos_embed: (1, 9, 64) in the file' in str(error.value)


def test_a_file_with_deeper_branches_is_refused(case):
    config = migrate_config(case.kind, case.kwargs)
    assert config['branches'][-1]['arch']['num_layers'] == 3
    config['branches'][-1]['arch']['num_layers'] = 2
    config['branches'][-1]['window_size'] = 4
    config['interaction_ends'][-1] = [0, 1]
    backbone = MODELS.build(config)
    last = backbone.branches[-1].depth
    with pytest.raises(ValueError, match=rf'left over:\n.*blocks\.{last}\.'):
        backbone.load_state_dict(dict(case.state_dict), strict=False)


def test_a_file_with_more_branches_says_so(case):
    backbone = MODELS.build(migrate_config(case.kind, case.kwargs))
    del backbone.branches[0]
    with pytest.raises(ValueError, match='published branch 3'):
        backbone.load_state_dict(dict(case.state_dict))


def test_published_file_into_another_backbone():
    model = torch.nn.Module()
    model.backbone = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match='the backbone of the config is Linear'):
        convert_published({'backbone.branch1.pos_embed': torch.zeros(1)}, model)


@pytest.mark.parametrize(
    'keys, config',
    [
        ('mask_rcnn_piip_sbl_1568_896_672', 'piip_sbl_maskrcnn_1x_1568-896-672'),
        ('mask_rcnn_piip_tsb_1120_896_448', 'piip_tsb_maskrcnn_1x_1120-896-448'),
        ('mask_rcnn_vit_b', 'vit_b_maskrcnn_1x'),
        (
            'mask_rcnn_piip_tsbl_1344_as_coded',
            'piip_tsbl_maskrcnn_1x_1344-896-672-448_released',
        ),
        ('mask_rcnn_internvit_6b', 'internvit_6b_maskrcnn_1x'),
        ('mask_rcnn_piip_h6b_1024_512', 'piip_h6b_maskrcnn_1x_1024-512'),
        ('mask_rcnn_piip_sbl_beitv2', 'piip_sbl_maskrcnn_1x_beitv2'),
        ('mask_rcnn_piip_sbl_dinov2', 'piip_sbl_maskrcnn_1x_dinov2'),
        ('mask_rcnn_piip_sbl_uniperceiver', 'piip_sbl_maskrcnn_1x_uniperceiver'),
        ('dino_piip_h6b_1024_768', 'piip_h6b_dino_1x_1024-768'),
        ('dino_piip_sbl_1792_1120_672', 'piip_sbl_dino_3x_1792-1120-672'),
    ],
)
def test_released_names(keys, config):
    """Every name and shape of the released models maps to exactly one of ours."""
    if zoo.IS_FORK and 'dino' in keys:
        pytest.skip("released DINO weights do not fit the fork's DINO")
    released = golden.released_names(keys)
    cfg = Config.fromfile(ROOT / f'configs/det/{config}.py')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
        tensors = {name: torch.zeros(shape) for name, shape in released.items()}
    assert is_published(tensors)
    converted, dropped = convert_published(tensors, model)
    fit = compare(converted, model)
    assert fit.misfits == [], str(fit)
    assert len(converted) + len(dropped) == len(released)
    # Nothing reads these: DINO takes no map of stride 4, and an index needs no storage.
    assert all(re.search(r'fpn1|relative_position_index', name) for name in dropped)


def test_names_of_the_heads_of_dino():
    """Many of its tensors have the same shape, so that fitting shapes prove little."""
    expected = golden.read('dino_heads')
    model = zoo.built('det/piip_sbl_dino_3x_1792-1120-672.py')
    converted, dropped = convert_published({name: name for name in expected}, model)
    assert {old: new for new, old in converted.items()} == expected
    assert dropped == []


def test_pretrained_weights_are_skipped_where_a_checkpoint_follows(tmp_path):
    cfg = Config.fromfile(ROOT / 'configs/det/piip_sbl_maskrcnn_1x.py')
    branches = cfg.model.backbone.branches
    cfg.work_dir, cfg.resume = str(tmp_path), True
    skip_pretrained(cfg)
    assert all(branch.init_cfg for branch in branches), 'nothing to resume from yet'
    cfg.resume, cfg.load_from = False, str(tmp_path / 'other.pth')
    torch.save({'state_dict': {'backbone.layer1.x': torch.ones(1)}}, cfg.load_from)
    skip_pretrained(cfg)
    assert all(branch.init_cfg for branch in branches), 'the file has another backbone'
    cfg.model.neck.init_cfg = dict(type='Pretrained', checkpoint='neck.pth')
    name = 'backbone.branches.0.pos_embed'
    torch.save({'state_dict': {name: torch.ones(1)}}, cfg.load_from)
    skip_pretrained(cfg)
    assert not any(branch.init_cfg for branch in branches)
    assert cfg.model.neck.init_cfg, 'the file has no neck'
    cfg.resume = True
    skip_pretrained(cfg)
    assert not cfg.model.neck.init_cfg


def test_heads_of_another_detector_are_reused(case, tmp_path):
    model = detector(case)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    heads = {n: v + 1 for n, v in before.items() if not n.startswith('backbone.')}
    other = {'backbone.layer1.0.conv1.weight': torch.zeros(1)}
    load({'state_dict': heads | other}, model, tmp_path, strict=False)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, heads.get(name, before[name]))


def test_as_many_values_in_another_shape_do_not_fit():
    fit = compare({'weight': torch.zeros(2, 8)}, torch.nn.Linear(4, 4, bias=False))
    assert fit.mismatched == ['weight: (2, 8) in the file, (4, 4) here']


@pytest.mark.parametrize('part', ['backbone', 'shapes', 'everything'])
def test_a_file_that_gives_a_part_has_to_give_all_of_it(case, tmp_path, part):
    model = detector(case)
    tensors = dict(model.state_dict())
    if part == 'backbone':
        del tensors['backbone.branches.0.pos_embed']
    elif part == 'shapes':
        for name in [name for name in tensors if name.startswith('backbone.')]:
            tensors[name] = tensors[name].new_zeros(2, 3, 5)
    else:
        tensors = {f'net.{name}': value for name, value in tensors.items()}
    with pytest.raises(CheckpointError, match='does not fit the model: .* fit the model'):
        load({'state_dict': tensors}, model, tmp_path, strict=False)


def test_the_tools_add_the_hook_once():
    cfg = Config(dict(custom_hooks=[dict(type='EMAHook')]))
    accept_published_checkpoints(cfg, strict=False)
    accept_published_checkpoints(cfg, strict=True)
    assert [hook['type'] for hook in cfg.custom_hooks] == [
        'EMAHook',
        'PublishedCheckpointHook',
    ]
    assert cfg.custom_hooks[1]['strict']


def test_classifier(tmp_path):
    """A file as saved by the published script: with its arguments, without a prefix."""
    case = golden.load('p4_cls_separate_head')
    model = MODELS.build(migrate_config(case.kind, case.kwargs)).eval()
    load({'model': case.state_dict, 'args': Namespace(lr=3e-5)}, model, tmp_path)
    with torch.no_grad():
        logits = model(case.image)
    assert case.outputs[0].deviation(logits) < golden.OUTPUT_TOLERANCE


@pytest.mark.skipif(zoo.IS_FORK, reason="needs upstream's DINO")
@pytest.mark.parametrize('file_is_of_the_fork', [False, True])
def test_dino_of_the_fork_is_explained(file_is_of_the_fork):
    upstream = zoo.built('det/piip_tiny_dino_shapes.py')
    fork = copy.deepcopy(upstream)
    fork.decoder.ref_point_head = MLP(4 * 256, 256, 256, 2)
    file, model = (fork, upstream) if file_is_of_the_fork else (upstream, fork)
    fit = compare(file.state_dict(), model)
    assert not (fit.missing or fit.left_over)
    (misfit,) = fit.mismatched
    assert re.search(
        r'ref_point_head.*\(256, (512|1024)\) in the file.*onedl-mmdetection.*mmdet 3\.3',
        misfit,
    )
