# ADE20K (SceneParsing), 150 classes, 2 images per GPU, crops of 512 x 512. For other crop
# sizes see ade20k_896.py. Normalisation and padding to the crop are part of the model's
# data_preprocessor, sliding windows of its test_cfg.
dataset_type = 'ADE20KDataset'
data_root = 'data/ade/ADEChallengeData2016/'
# Shown by the tools when files are missing.
data_help = """ADE20K is expected as
  data/ade/ADEChallengeData2016/images/training/*.jpg
  data/ade/ADEChallengeData2016/images/validation/*.jpg
  data/ade/ADEChallengeData2016/annotations/training/*.png
  data/ade/ADEChallengeData2016/annotations/validation/*.png
To get it, download this archive and unpack it in data/ade:
  http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip
If it lies elsewhere:
  mkdir -p data/ade && ln -s /path/to/ADEChallengeData2016 data/ade/"""

crop_size = (512, 512)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize',
        scale=(2048, 512),
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    # The short edge becomes 512 for any aspect ratio, so that no window is smaller than
    # the crop.
    dict(type='Resize', scale=(1_000_000, 512), keep_ratio=True),
    # After Resize, so that the ground truth keeps its original size.
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(
            img_path='images/validation', seg_map_path='annotations/validation'
        ),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
