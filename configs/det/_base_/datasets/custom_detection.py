# Any data set in COCO format, boxes only. Its paths and classes are given once, here or
# on the command line, and the tools put them where they belong:
#   --cfg-options custom.data_root=data/cells custom.classes=RBC,WBC
custom = dict(
    # Everything below is relative to it.
    data_root='data/custom/',
    train_ann='annotations/train.json',
    val_ann='annotations/val.json',
    train_img='images/',
    val_img='images/',
    # None uses all categories of the training annotations.
    classes=None,
)
# Shown by the tools when files are missing.
data_help = (
    'Say where the data set lies: --cfg-options custom.data_root=DIR '
    'custom.train_ann=FILE custom.val_ann=FILE custom.train_img=DIR custom.val_img=DIR '
    '(all but the first are relative to the first).'
)

# (width, height) that images are scaled to fit.
image_scale = (320, 256)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    # After Resize, so that the ground truth keeps the original coordinates, in which it
    # is drawn next to the predictions.
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]

train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type='CocoDataset',
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CocoDataset', test_mode=True, pipeline=test_pipeline),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='CocoMetric', ann_file=None, metric='bbox')
test_evaluator = val_evaluator
