"""The tools as a user meets them: arguments, messages, a run from start to end."""

import json
import math
import os
import pickle
import re
import subprocess
import sys
from argparse import Namespace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import cv2
import golden
import make_shapes
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from mmpretrain.engine.hooks import VisualizationHook

from piip_mm.engine import launch, tta
from piip_mm.published import migrate_config

ROOT = Path(__file__).parents[1]
TINY = str(ROOT / 'configs/det/piip_tiny_maskrcnn_shapes.py')
SBL = str(ROOT / 'configs/det/piip_sbl_maskrcnn_1x.py')


def run(tool, *arguments, cwd):
    """Output and exit code of a tool, run in a directory."""
    paths = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    return subprocess.run(
        [sys.executable, str(ROOT / 'tools' / tool), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, 'PYTHONPATH': paths, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        check=False,
    )


def load(tool):
    """A tool as a module."""
    spec = spec_from_file_location('tool', ROOT / 'tools' / tool)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse(tool, *arguments, monkeypatch):
    """What a tool makes of its arguments."""
    monkeypatch.setattr(sys, 'argv', [tool, *arguments])
    return load(tool).parse_args()


# --- Errors before a run --------------------------------------------------------------


def test_train_without_coco_says_what_is_missing(tmp_path):
    result = run('train.py', SBL, cwd=tmp_path)
    assert result.returncode == 1
    assert 'Traceback' not in result.stderr
    assert result.stderr.startswith('error: 4 path(s) that this run needs do not exist')
    for path in (
        'annotations/instances_train2017.json',
        'annotations/instances_val2017.json',
        'train2017',
        'val2017',
    ):
        assert f'expected at {tmp_path}/data/coco/{path}' in result.stderr
    assert 'http://images.cocodataset.org/zips/train2017.zip' in result.stderr
    assert not list(tmp_path.iterdir()), 'nothing is written before the check'


def test_test_without_checkpoint(tmp_path):
    result = run('test.py', SBL, 'gone.pth', cwd=tmp_path)
    assert result.returncode == 1
    assert 'checkpoint to load; expected at' in result.stderr
    assert str(tmp_path / 'gone.pth') in result.stderr
    assert 'train2017' not in result.stderr.split('COCO 2017 is expected')[0]


def test_missing_config(tmp_path):
    result = run('train.py', 'gone.py', cwd=tmp_path)
    assert result.returncode == 1
    assert re.match(r'error: .*gone\.py', result.stderr.strip().splitlines()[-1])


@pytest.mark.parametrize(
    ('tool', 'arguments', 'message'),
    [
        ('train.py', (), 'the following arguments are required: config'),
        ('test.py', (TINY,), 'the following arguments are required: checkpoint'),
        ('test.py', (TINY, 'a.pth', '--out', 'a.json'), 'must be a pkl file'),
        ('train.py', (TINY, '--launcher', 'foo'), "invalid choice: 'foo'"),
    ],
)
def test_wrong_arguments(tool, arguments, message, monkeypatch, capsys):
    with pytest.raises(SystemExit, match='2'):
        parse(tool, *arguments, monkeypatch=monkeypatch)
    assert message in capsys.readouterr().err


def test_mmdetection_s_arguments(monkeypatch):
    common = ('--work-dir', 'w', '--launcher', 'pytorch', '--local-rank', '1')
    args = parse(
        'train.py',
        *(TINY, '--amp', '--auto-scale-lr', '--resume', '--compile', *common),
        *('--cfg-options', 'a.b=1', 'c=[1,(2,x)]'),
        monkeypatch=monkeypatch,
    )
    assert vars(args) == dict(
        config=TINY,
        work_dir='w',
        amp=True,
        auto_scale_lr=True,
        resume='auto',
        compile=True,
        launcher='pytorch',
        local_rank=1,
        cfg_options={'a.b': 1, 'c': [1, (2, 'x')]},
    )
    args = parse(
        'test.py',
        *(TINY, 'a.pth', '--out', 'o.pkl', '--show', '--show-dir', 's'),
        *('--wait-time', '0.5', '--tta', '--fuse', *common),
        monkeypatch=monkeypatch,
    )
    assert vars(args) == dict(
        config=TINY,
        checkpoint='a.pth',
        compile=False,
        work_dir='w',
        out='o.pkl',
        show=True,
        show_dir='s',
        wait_time=0.5,
        tta=True,
        fuse=True,
        launcher='pytorch',
        local_rank=1,
        cfg_options={},
    )


# --- Switches -------------------------------------------------------------------------


def switch(cfg, **arguments):
    """The config after the switches of tools/train.py."""
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper')) | cfg)
    arguments = dict(amp=False, auto_scale_lr=False, resume=None) | arguments
    load('train.py').apply_switches(cfg, Namespace(**arguments))
    return cfg


def test_amp_is_bf16_without_loss_scaling():
    assert switch({}, amp=True).optim_wrapper == dict(
        type='AmpOptimWrapper', dtype='bfloat16', loss_scale=1.0
    )


def test_amp_keeps_what_the_config_says():
    wrapper = dict(type='OptimWrapper', dtype='float16')
    wrapper = switch(dict(optim_wrapper=wrapper), amp=True).optim_wrapper
    assert wrapper.dtype == 'float16'
    assert wrapper.loss_scale == 'dynamic'


def test_amp_needs_a_gpu():
    train = load('train.py')
    cfg = Config(dict(optim_wrapper=dict(type='AmpOptimWrapper')))
    train.get_device = lambda: 'cpu'
    with pytest.raises(ValueError, match=r'AmpOptimWrapper.* needs a GPU.*without --amp'):
        train.check_amp_device(cfg)
    train.get_device = lambda: 'cuda'
    train.check_amp_device(cfg)


def test_auto_scale_lr_needs_the_base_batch_size():
    with pytest.raises(ValueError, match=r'Can not find "auto_scale_lr.base_batch_size"'):
        switch({}, auto_scale_lr=True)
    cfg = dict(auto_scale_lr=dict(enable=False, base_batch_size=16))
    assert switch(cfg, auto_scale_lr=True).auto_scale_lr.enable


@pytest.mark.parametrize(
    ('argument', 'resume', 'load_from'),
    [(None, False, 'a.pth'), ('auto', True, None), ('b.pth', True, 'b.pth')],
)
def test_resume(argument, resume, load_from):
    cfg = switch(dict(resume=False, load_from='a.pth'), resume=argument)
    assert (cfg.resume, cfg.load_from) == (resume, load_from)


def draw(cfg, show_dir=None):
    cfg = Config(cfg)
    args = Namespace(show=True, show_dir=show_dir, wait_time=3)
    load('test.py').enable_drawing(cfg, args)
    return cfg


def test_show_needs_a_hook_and_a_visualizer():
    with pytest.raises(ValueError, match='DetVisualizationHook'):
        draw({})
    hooks = dict(visualization=dict(type='DetVisualizationHook'))
    with pytest.raises(ValueError, match="visualizer=.*'SegLocalVisualizer'"):
        draw(dict(default_hooks=hooks))


def test_tta_flips_and_leaves_out_masks():
    cfg = Config.fromfile(TINY)
    tta.enable_tta(cfg)
    assert cfg.model.type == 'DetTTAModel'
    assert cfg.model.module.roi_head.mask_head is None
    assert cfg.test_evaluator.metric == 'bbox'
    flips, (pack,) = cfg.test_dataloader.dataset.pipeline[-1].transforms
    # The first view is the one that is drawn: without a flip.
    assert [flip.prob for flip in flips] == [0.0, 1.0]
    # The default of the step keeps the flip.
    assert pack == dict(type='PackDetInputs')


def test_tta_elsewhere_needs_its_config():
    dataset = dict(dataset=dict(pipeline=[]))
    cfg = Config(dict(default_scope='mmpose', test_dataloader=dataset))
    message = r"tta_model and tta_pipeline.*\['mmdet', 'mmpretrain', 'mmseg'\].*'mmpose'"
    with pytest.raises(ValueError, match=message):
        tta.enable_tta(cfg)


@pytest.mark.parametrize(
    ('scope', 'model', 'last'),
    [
        ('mmseg', 'SegTTAModel', 'PackSegInputs'),
        ('mmpretrain', 'AverageClsScoreTTA', 'PackInputs'),
    ],
)
def test_tta_flips_in_every_task(scope, model, last):
    pipeline = [dict(type='LoadImageFromFile'), dict(type=last)]
    loader = dict(dataset=dict(pipeline=pipeline))
    cfg = Config(dict(default_scope=scope, test_dataloader=loader, model=dict(a=1)))
    tta.enable_tta(cfg)
    assert cfg.model == dict(type=model, module=dict(a=1))
    load, views = cfg.test_dataloader.dataset.pipeline
    assert load.type == 'LoadImageFromFile'
    flips, pack = views.transforms
    assert [flip.prob for flip in flips] == [0.0, 1.0]
    assert pack == [dict(type=last)]


@pytest.mark.parametrize(
    ('scope', 'hook'),
    [
        ('mmseg', 'SegVisualizationHook'),
        ('mmpretrain', 'VisualizationHook'),
        (None, 'mmpretrain.VisualizationHook'),
        (None, 'mmseg.engine.hooks.visualization_hook.SegVisualizationHook'),
        (None, VisualizationHook),
    ],
)
def test_hooks_of_the_other_tasks_are_replaced(scope, hook):
    hooks = dict(visualization=dict(type=hook, interval=5))
    base = dict(default_scope=scope, visualizer=dict(type='A'))
    cfg = draw(dict(base, default_hooks=hooks), show_dir='s')
    assert cfg.default_hooks.visualization == dict(
        type='DrawPredictionsHook', draw=True, show=True, wait_time=3, test_out_dir='s'
    )


def test_slurm_needs_gpus(monkeypatch, tmp_path):
    monkeypatch.setattr(launch, 'get_device', lambda: 'cpu')
    arguments = type('Args', (), dict(launcher='slurm'))
    with pytest.raises(ValueError, match='--launcher slurm needs GPUs'):
        launch.load_config(arguments)


# --- Shell scripts --------------------------------------------------------------------


@pytest.fixture
def echo(tmp_path):
    """A program that prints its arguments, one a line."""
    path = tmp_path / 'echo.sh'
    path.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    path.chmod(0o755)
    (tmp_path / 'srun').symlink_to(path)
    return path


def script(name, *arguments, echo, **env):
    path = f'{echo.parent}:{os.environ["PATH"]}'
    result = subprocess.run(
        ['bash', str(ROOT / 'tools' / name), *arguments],
        env={**os.environ, 'PATH': path, 'PYTHON': str(echo), **env},
        capture_output=True,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout.splitlines(), result.stderr


def test_dist_train_command(echo):
    options = ('--cfg-options', "a.b='x y'")
    env = dict(NNODES='2', NODE_RANK='1', PORT='29999', MASTER_ADDR='10.0.0.1')
    code, words, _ = script('dist_train.sh', 'c.py', '8', *options, echo=echo, **env)
    assert code == 0
    assert words == [
        '-m',
        'torch.distributed.run',
        '--nnodes=2',
        '--node_rank=1',
        '--master_addr=10.0.0.1',
        '--nproc_per_node=8',
        '--master_port=29999',
        f'{ROOT}/tools/train.py',
        'c.py',
        '--launcher',
        'pytorch',
        # Quoted words stay one word.
        *options,
    ]


def test_dist_test_command(echo):
    code, words, _ = script('dist_test.sh', 'c.py', 'a.pth', '2', '--tta', echo=echo)
    assert code == 0
    assert words[2:7] == [
        '--nnodes=1',
        '--node_rank=0',
        '--master_addr=127.0.0.1',
        '--nproc_per_node=2',
        '--master_port=29500',
    ]
    assert words[7:] == [
        f'{ROOT}/tools/test.py',
        'c.py',
        'a.pth',
        '--launcher',
        'pytorch',
        '--tta',
    ]


@pytest.mark.parametrize(
    ('name', 'last', 'tail'),
    [
        ('slurm_train.sh', 'work', ['--work-dir=work', '--launcher=slurm', '--amp']),
        ('slurm_test.sh', 'a.pth', ['a.pth', '--launcher=slurm', '--amp']),
    ],
)
def test_slurm_command(name, last, tail, echo):
    env = dict(GPUS='16', SRUN_ARGS='--quiet --exclusive')
    arguments = ('part', 'job', 'c.py', last, '--amp')
    code, words, _ = script(name, *arguments, echo=echo, **env)
    assert code == 0
    assert words[:7] == [
        '-p',
        'part',
        '--job-name=job',
        '--gres=gpu:8',
        '--ntasks=16',
        '--ntasks-per-node=8',
        '--cpus-per-task=5',
    ]
    assert words[8:10] == ['--quiet', '--exclusive']
    tool = name.removeprefix('slurm_').replace('.sh', '.py')
    assert words[10:] == [str(echo), '-u', f'{ROOT}/tools/{tool}', 'c.py', *tail]


@pytest.mark.parametrize(
    'name', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh']
)
def test_scripts_say_what_they_need(name, echo):
    code, _, error = script(name, echo=echo)
    assert code != 0
    assert 'usage: ' in error
    assert 'CONFIG' in error


# --- From start to end ----------------------------------------------------------------


def make_data(out, layout, train, val):
    counts = f'--train {train} --val {val}'.split()
    make_shapes.main(['--layout', layout, '--out', str(out), *counts])


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A directory with four images and a model trained on them for one epoch."""
    cwd = tmp_path_factory.mktemp('run')
    make_data(cwd / 'data/shapes', 'coco', 4, 2)
    result = run('train.py', TINY, '--work-dir', 'work', *OPTIONS, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return cwd


OPTIONS = (
    '--cfg-options',
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    'train_dataloader.batch_size=2',
    'default_hooks.logger.interval=1',
)


def log_of(work_dir):
    """Entries of the newest JSON log of a work directory."""
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for line in files[-1].read_text().splitlines()]


def test_training_logs_losses_and_saves(trained):
    log = log_of(trained / 'work')
    losses = [entry['loss'] for entry in log if 'loss' in entry]
    assert len(losses) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert any('coco/segm_mAP' in entry for entry in log)
    assert (trained / 'work/epoch_1.pth').exists()


def test_resume_goes_on(trained):
    more = [word.replace('max_epochs=1', 'max_epochs=2') for word in OPTIONS]
    result = run('train.py', TINY, '--work-dir', 'work', '--resume', *more, cwd=trained)
    assert result.returncode == 0, result.stderr
    steps = [entry['step'] for entry in log_of(trained / 'work') if 'loss' in entry]
    assert steps == [3, 4]
    assert (trained / 'work/epoch_2.pth').exists()


def test_testing_writes_predictions_and_pictures(trained):
    result = run(
        'test.py',
        TINY,
        'work/epoch_1.pth',
        *('--work-dir', 'tested', '--out', 'out.pkl', '--show-dir', 'pictures'),
        cwd=trained,
    )
    assert result.returncode == 0, result.stderr
    with (trained / 'out.pkl').open('rb') as file:
        predictions = pickle.load(file)
    assert len(predictions) == 2
    assert 'masks' in predictions[0]['pred_instances']
    pictures = sorted(path.name for path in trained.glob('tested/*/pictures/*.png'))
    assert pictures == ['000001.png', '000002.png']
    metrics = json.loads(next(trained.glob('tested/*/*.json')).read_text())
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= set(metrics)


def run_on_two_cpus(tool, *arguments, cwd):
    env = {
        'PYTHON': sys.executable,
        'PORT': '29877',
        'OMP_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '-1',
    }
    return subprocess.run(
        ['bash', str(ROOT / f'tools/dist_{tool}.sh'), *arguments],
        cwd=cwd,
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )


def test_two_processes_on_the_cpu(trained):
    """DDP over gloo; finds no unused parameters, or the second step would fail."""
    result = run_on_two_cpus(
        *('train', TINY, '2', '--work-dir', 'two', '--auto-scale-lr', *OPTIONS),
        *('train_dataloader.batch_size=1', 'auto_scale_lr.base_batch_size=4'),
        cwd=trained,
    )
    assert result.returncode == 0, result.stderr
    output = result.stdout + result.stderr
    assert 'No GPU: 2 processes on the CPU' in output
    # Two processes of one image, made for four: half the rate.
    assert 'Scaling the original LR by 0.5' in output
    assert (trained / 'two/epoch_1.pth').exists()


def edit_annotations(cwd, source, target, edit):
    """Copy an annotation file of the shapes with changes."""
    folder = cwd / 'data/shapes/annotations'
    content = json.loads((folder / source).read_text())
    edit(content)
    (folder / target).write_text(json.dumps(content))
    return f'annotations/{target}'


def test_broken_annotations_stop_every_process_with_one_message(trained):
    def break_some(content):
        del content['annotations'][0]['area']
        content['annotations'][1]['image_id'] = 99
        for image in content['images']:
            image['file_name'] = f'train/{image["file_name"]}'

    ann_file = edit_annotations(trained, 'instances_train.json', 'bad.json', break_some)
    option = f'train_dataloader.dataset.ann_file={ann_file}'
    result = run_on_two_cpus(
        *('train', TINY, '2', '--work-dir', 'bad', '--cfg-options', option), cwd=trained
    )
    assert result.returncode == 1
    output = result.stdout + result.stderr
    assert output.count('error: the annotations cannot be used') == 1
    title = 'data/shapes/annotations/bad.json (train_dataloader):'
    assert f'{title}\n  1 annotation(s) without area: add what is missing' in output
    assert 'train/000001.png is in data/shapes; set data_prefix=dict(img=' in output
    assert '1 annotation(s) whose image_id is that of no image (' in output
    assert f'{title} 4 of 4 images' in output
    assert not list(trained.glob('bad/*.pth'))


def test_a_detector_is_not_tested_on_classes_in_another_order(trained):
    ann_file = edit_annotations(
        *(trained, 'instances_val.json', 'turned.json'),
        lambda content: content['categories'].reverse(),
    )
    result = run(
        'test.py',
        *(TINY, 'work/epoch_1.pth', '--cfg-options'),
        f'test_dataloader.dataset.ann_file={ann_file}',
        f'test_evaluator.ann_file=data/shapes/{ann_file}',
        'test_dataloader.dataset.metainfo.classes=[triangle,square,disc]',
        cwd=trained,
    )
    assert result.returncode == 1
    assert (
        'epoch_1.pth: the classes of the data set of test_dataloader (CocoDataset) are '
        'in another order than those of the checkpoint. From label 0 on,\n'
        "  the checkpoint (3 classes) has 'disc', 'square', 'triangle'\n"
        "  the data set (3 classes) has 'triangle', 'square', 'disc'\n"
    ) in result.stderr
    assert 'Traceback' not in result.stderr


# --- Checkpoints of the published code ------------------------------------------------


@pytest.fixture(scope='module')
def released(trained):
    """Config and weights of a small detector in the layout of the published code."""
    case = golden.load('p1_three_branch_deit')
    cfg = Config.fromfile(TINY)
    backbone = dict(migrate_config(case.kind, case.kwargs), _delete_=True)
    rpn_head = dict(anchor_generator=dict(strides=[4, 8, 16, 32]))
    neck = dict(in_channels=[64] * 4)
    model = dict(backbone=backbone, neck=neck, rpn_head=rpn_head)
    cfg.merge_from_dict(dict(model=model))
    cfg.dump(trained / 'released.py')
    init_default_scope('mmdet')
    tensors = MODELS.build(cfg.model).state_dict()
    DefaultScope._instance_dict.clear()
    heads = {n: v for n, v in tensors.items() if not n.startswith('backbone.')}
    return {f'backbone.{n}': v for n, v in case.state_dict.items()} | heads


@pytest.mark.parametrize('container', ['state_dict', 'module'])
def test_a_released_checkpoint_as_downloaded(trained, released, container):
    mixed = {n: v.bfloat16() if 'blocks' in n else v for n, v in released.items()}
    torch.save({container: mixed}, trained / f'{container}.pth')
    result = run('test.py', 'released.py', f'{container}.pth', cwd=trained)
    assert result.returncode == 0, result.stderr
    output = result.stdout + result.stderr
    assert f'published PIIP code: {len(released)} tensors fit the model' in output
    assert 'coco/bbox_mAP:' in output


def test_test_time_augmentation_of_a_released_checkpoint(trained, released):
    torch.save({'state_dict': released}, trained / 'tta.pth')
    result = run('test.py', 'released.py', 'tta.pth', '--tta', '--fuse', cwd=trained)
    assert result.returncode == 0, result.stderr
    output = result.stdout + result.stderr
    assert 'Fused: 2 of 4 levels of the pyramid' in output
    masks = [name for name in released if name.startswith('roi_head.mask_head.')]
    assert f'{len(masks)} dropped:' in output
    assert 'coco/bbox_mAP:' in output and 'segm_mAP' not in output


def test_a_checkpoint_that_does_not_fit_stops(trained, released):
    misfit = dict(released)
    del misfit['backbone.w2']
    misfit['backbone.v7'] = torch.ones(())
    torch.save({'state_dict': misfit}, trained / 'misfit.pth')
    result = run('test.py', 'released.py', 'misfit.pth', cwd=trained)
    assert result.returncode == 1
    assert '1 missing:\n  backbone.merges.0.scales.1' in result.stderr
    assert '1 left over:\n  backbone.v7' in result.stderr
    assert 'Traceback' not in result.stderr


# --- Segmentation and classification --------------------------------------------------

TASKS = ('seg', 'cls')
LAYOUT = dict(seg='ade20k', cls='imagenet')
METRIC = dict(seg='mIoU', cls='accuracy/top1')
NORMALISATION = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])


def write_task_config(task, path):
    """A config on the shapes: two small branches, heads of mmseg and mmpretrain.

    The auxiliary head of the segmentor finds boundaries.
    """
    branches = [
        dict(
            type='PIIPViT',
            arch=dict(embed_dims=32, num_layers=2, num_heads=4),
            img_size=size,
            pretrain_img_size=size,
        )
        for size in (96, 64)
    ]
    backbone = dict(
        type='PIIP',
        branches=branches,
        num_interactions=2,
        interaction=dict(num_heads=4),
        out_strides=(8,),
    )
    if task == 'seg':
        head = dict(
            type='FCNHead',
            in_channels=32,
            in_index=0,
            channels=32,
            num_convs=1,
            num_classes=4,
        )
        preprocessor = dict(type='SegDataPreProcessor', bgr_to_rgb=True, size=(160, 160))
        boundaries = dict(
            head, type='STDCHead', num_classes=2, boundary_threshold=0.1, channels=8
        )
        model = dict(
            type='EncoderDecoder',
            decode_head=head,
            auxiliary_head=[boundaries],
            test_cfg=dict(mode='whole'),
        )
        train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
    else:
        head = dict(type='LinearClsHead', in_channels=32, num_classes=3, topk=(1,))
        preprocessor = dict(to_rgb=True)
        neck = dict(type='GlobalAveragePooling')
        model = dict(type='ImageClassifier', neck=neck, head=head)
        train_cfg = dict(by_epoch=True, max_epochs=1)
    model.update(backbone=backbone, data_preprocessor=preprocessor | NORMALISATION)
    shapes = dict(seg='shapes_semantic', cls='shapes_classification')[task]
    base = ROOT / f'configs/{task}/_base_'
    cfg = dict(
        model=model,
        train_dataloader=dict(batch_size=2, num_workers=0, persistent_workers=False),
        val_dataloader=dict(num_workers=0, persistent_workers=False),
        test_dataloader=dict(num_workers=0, persistent_workers=False),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        train_cfg=train_cfg,
        val_cfg={},
        test_cfg={},
        default_hooks=dict(logger=dict(interval=1), checkpoint=dict(interval=2)),
    )
    if task == 'cls':
        cfg['default_hooks']['checkpoint']['interval'] = 1
    lines = [f'_base_ = {[f"{base}/datasets/{shapes}.py", f"{base}/default_runtime.py"]}']
    lines += [f'{key} = {value!r}' for key, value in cfg.items()]
    path.write_text('\n'.join(lines))


@pytest.fixture(scope='module', params=TASKS)
def trained_task(request, tmp_path_factory):
    """A directory with a config, images, and a model trained for two steps; the task."""
    task = request.param
    cwd = tmp_path_factory.mktemp(task)
    write_task_config(task, cwd / 'config.py')
    make_data(cwd / f'data/shapes_{task}', LAYOUT[task], 4, 3)
    result = run('train.py', 'config.py', '--work-dir', 'work', cwd=cwd)
    assert result.returncode == 0, result.stderr
    return cwd, task


def last_checkpoint(cwd):
    return (cwd / 'work/last_checkpoint').read_text()


def metrics_of(cwd):
    """Metrics of the run whose work directory is ``cwd / 'tested'``."""
    return json.loads(next(cwd.glob('tested/*/*.json')).read_text())


def test_every_task_trains_and_validates(trained_task):
    cwd, task = trained_task
    log = log_of(cwd / 'work')
    losses = [entry['loss'] for entry in log if 'loss' in entry]
    assert len(losses) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert any(METRIC[task] in entry for entry in log)


def test_every_task_writes_predictions_and_pictures(trained_task):
    cwd, task = trained_task
    out = dict(seg='maps', cls='out.pkl')[task]
    result = run(
        'test.py',
        *('config.py', last_checkpoint(cwd), '--work-dir', 'tested'),
        *('--out', out, '--show-dir', 'pictures'),
        cwd=cwd,
    )
    assert result.returncode == 0, result.stderr
    assert 0 <= metrics_of(cwd)[METRIC[task]] <= 100
    names = ['000001.png', '000002.png', '000003.png']
    pictures = sorted(cwd.glob('tested/*/pictures/*.png'))
    if task == 'seg':
        assert [path.name for path in pictures] == names
        assert sorted(path.name for path in (cwd / 'maps').iterdir()) == names
        labels = cv2.imread(str(cwd / 'maps/000001.png'), cv2.IMREAD_UNCHANGED)
        assert labels.shape == (192, 256)
        # As in the annotations, where no pixel is 0.
        assert {1, 2, 3, 4} >= set(labels.ravel().tolist())
        # Left the ground truth, right the prediction.
        assert cv2.imread(str(pictures[0])).shape == (192, 512, 3)
    else:
        with (cwd / 'out.pkl').open('rb') as file:
            predictions = pickle.load(file)
        assert len(predictions) == 3
        assert predictions[0]['pred_score'].sum().item() == pytest.approx(1, abs=1e-5)
        # Named with the folder, since two classes may have images of one name.
        sources = sorted(cwd.glob('data/shapes_cls/val/*/*.png'))
        expected = [f'{path.parent.name}_{path.name}' for path in sources]
        assert [path.name for path in pictures] == expected
        # The text covers the upper left; the colours are those of the image.
        source = sources[0]
        picture, image = (cv2.imread(str(path))[-20:] for path in (pictures[0], source))
        assert abs(picture.astype(int) - image).mean() < 3


def test_other_classes_than_those_of_the_checkpoint_stop(trained_task):
    cwd, task = trained_task
    names = ('background', 'disc', 'square', 'triangle')[task == 'cls' :]
    other = f'metainfo.classes=[{",".join(names[::-1])}]'
    checkpoint = last_checkpoint(cwd)
    options = ('--work-dir', 'other', '--cfg-options')
    for tool, arguments, loader in (
        ('test.py', ['config.py', checkpoint], 'test_dataloader'),
        ('train.py', ['config.py', '--resume', checkpoint], 'train_dataloader'),
    ):
        option = f'{loader}.dataset.{other}'
        result = run(tool, *arguments, *options, option, cwd=cwd)
        assert result.returncode == 1, result.stdout
        message = f'.pth: the classes of the data set of {loader}'
        assert message in result.stderr
        assert 'Traceback' not in result.stderr
        assert 'in another order than those of the checkpoint' in result.stderr
        assert f"({len(names)} classes) has 'triangle'" in result.stderr


def test_test_time_augmentation_in_every_task(trained_task):
    cwd, task = trained_task
    for path in cwd.glob('tested/*/*.json'):
        path.unlink()
    result = run(
        'test.py',
        *('config.py', last_checkpoint(cwd), '--work-dir', 'tested'),
        *('--tta', '--show-dir', 'augmented'),
        cwd=cwd,
    )
    assert result.returncode == 0, result.stderr
    assert 'horizontal flips are used' in result.stderr + result.stdout
    assert 0 <= metrics_of(cwd)[METRIC[task]] <= 100
    assert len(list(cwd.glob('tested/*/augmented/*.png'))) == 3


@pytest.mark.parametrize('trained_task', ['cls'], indirect=True)
def test_averaged_weights_are_tested(trained_task):
    """``EMAHook`` makes its model before a run, and swaps it in after loading."""
    cwd, task = trained_task
    (cwd / 'ema.py').write_text(
        "_base_ = 'config.py'\ncustom_hooks = [dict(type='EMAHook', momentum=0.5)]\n"
    )
    result = run('train.py', 'ema.py', '--work-dir', 'ema', cwd=cwd)
    assert result.returncode == 0, result.stderr
    checkpoint = (cwd / 'ema/last_checkpoint').read_text()
    (validated,) = [entry for entry in log_of(cwd / 'ema') if METRIC[task] in entry]
    for out, *option in (['ema_tested'], ['ema_fused', '--fuse']):
        arguments = ('ema.py', checkpoint, '--work-dir', out, *option)
        result = run('test.py', *arguments, cwd=cwd)
        assert result.returncode == 0, result.stderr
        tested = json.loads(next(cwd.glob(f'{out}/*/*.json')).read_text())
        assert tested[METRIC[task]] == validated[METRIC[task]]


def test_missing_images_of_classes_stop_early(tmp_path):
    write_task_config('cls', tmp_path / 'config.py')
    result = run('test.py', 'config.py', 'https://example.org/a.pth', cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith('error: 1 path(s) that this run needs do not exist')
    assert f'expected at {tmp_path}/data/shapes_cls/val' in result.stderr
    assert '--layout imagenet --out data/shapes_cls' in result.stderr


def test_another_number_of_classes_stops_early(tmp_path):
    write_task_config('seg', tmp_path / 'config.py')
    make_data(tmp_path / 'data/shapes_seg', 'ade20k', 1, 1)
    wrong = 'model.decode_head.num_classes=150'
    result = run('train.py', 'config.py', '--cfg-options', wrong, cwd=tmp_path)
    assert result.returncode == 1
    assert re.match(
        r'error: model\.decode_head\.num_classes = 150, but .* has 4 classes \(backgr',
        result.stderr.splitlines()[-1],
    )
    assert '--cfg-options model.decode_head.num_classes=4;' in result.stderr


def test_a_label_that_is_no_class_names_its_file(tmp_path):
    write_task_config('seg', tmp_path / 'config.py')
    root = tmp_path / 'data/shapes_seg'
    make_data(root, 'ade20k', 1, 1)
    path = root / 'annotations/training/000001.png'
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    labels[:2, :3] = 9
    cv2.imwrite(str(path), labels)
    result = run('train.py', 'config.py', cwd=tmp_path)
    assert result.returncode == 1
    assert re.search(
        r'000001\.png has the value\(s\) \[9\] in 6 pixels.* has 4 classes', result.stderr
    )


def test_sync_bn_in_two_processes_on_the_cpu(tmp_path):
    write_task_config('seg', tmp_path / 'config.py')
    counts = ['--train', '2', '--val', '2']
    out = str(tmp_path / 'data/shapes_seg')
    make_shapes.main(['--layout', 'ade20k', '--out', out, *counts])
    result = run_on_two_cpus(
        *('train', 'config.py', '2', '--work-dir', 'work'),
        *('--cfg-options', 'train_dataloader.batch_size=1'),
        'model.decode_head.norm_cfg.type=SyncBN',
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert 'SyncBN becomes BN' in result.stdout + result.stderr
    assert (tmp_path / 'work/last_checkpoint').exists()
