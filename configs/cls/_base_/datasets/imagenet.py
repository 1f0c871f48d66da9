# ImageNet-1k as the released classifiers were fine-tuned: 384 x 384, 128 images per GPU,
# RandAugment as in timm ('rand-m9-mstd0.5-inc1'). For a different size see
# imagenet_368.py. Normalisation, mixup and CutMix are part of the model.
dataset_type = 'ImageNet'
data_root = 'data/imagenet/'
# Shown by the tools when files are missing.
data_help = """ImageNet-1k (ILSVRC2012) is expected as one folder per class:
  data/imagenet/train/n01440764/*.JPEG ... (1000 folders)
  data/imagenet/val/n01440764/*.JPEG ...   (the same 1000 folders)
To get it, register at https://image-net.org/download-images and download
ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar. The archive of validation images
has no folders: sort its images into those of the classes, or list all of them with
their classes (0 to 999), as 'ILSVRC2012_val_00000001.JPEG 65', in
data/imagenet/meta/val.txt.
If it lies elsewhere: mkdir -p data && ln -s /path/to/imagenet data/imagenet"""

image_size = 384
# The mean colour, in BGR order as images are loaded.
pad_val = [104, 116, 124]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomResizedCrop',
        scale=image_size,
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=pad_val, interpolation='bicubic'),
    ),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    # The crop below is as large as the resized short edge.
    dict(
        type='ResizeEdge',
        scale=image_size,
        edge='short',
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='CenterCrop', crop_size=image_size),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='train',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        split='val',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
