"""Data and run of the tests' detector, as a config of classes."""

from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, RandomFlip, Resize
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.evaluation import CocoMetric
from mmdet.visualization import DetLocalVisualizer
from mmengine.dataset import DefaultSampler
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from mmengine.visualization import LocalVisBackend
from torch.optim import AdamW

from piip_mm.engine import PIIPLayerDecayOptimWrapperConstructor, PublishedCheckpointHook

# As in mmdet's own configs of classes.
default_scope = None

classes = ('disc', 'square', 'triangle')
loader = dict(batch_size=2, num_workers=0)
load = dict(type=LoadImageFromFile)
annotations = dict(type=LoadAnnotations, with_bbox=True, with_mask=True)
resize = dict(type=Resize, scale=(96, 96), keep_ratio=True)
flip = dict(type=RandomFlip, prob=0.5)
pack = dict(type=PackDetInputs)
dataset = dict(type=CocoDataset, data_root='shapes/', metainfo=dict(classes=classes))
train_dataloader = dict(
    **loader,
    sampler=dict(type=DefaultSampler, shuffle=True),
    dataset=dict(
        **dataset,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
        pipeline=[load, annotations, resize, flip, pack],
    ),
)
val_dataloader = dict(
    **loader,
    sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(
        **dataset,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
        test_mode=True,
        pipeline=[load, resize, annotations, pack],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type=CocoMetric,
    ann_file='shapes/annotations/instances_val.json',
    metric=['bbox', 'segm'],
)
test_evaluator = val_evaluator

train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=1)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
optim_wrapper = dict(
    type=OptimWrapper,
    constructor=PIIPLayerDecayOptimWrapperConstructor,
    optimizer=dict(type=AdamW, lr=1e-3),
    paramwise_cfg=dict(layer_decay_rate=0.5),
)
default_hooks = dict(
    checkpoint=dict(type=CheckpointHook), visualization=dict(type=DetVisualizationHook)
)
custom_hooks = [dict(type=PublishedCheckpointHook)]
visualizer = dict(type=DetLocalVisualizer, vis_backends=[dict(type=LocalVisBackend)])
