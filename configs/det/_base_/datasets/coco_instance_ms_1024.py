# COCO with masks and multi-scale training for networks of 1024 pixels: DETR's random
# scales, half of the time after a crop, then a crop to at most 1024 pixels per side.
# Testing uses whole images, which are 1.3 times as large.
_base_ = 'coco_instance.py'

# Short and long edge.
scales = [(short, 1333) for short in range(480, 801, 32)]

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='RandomFlip', prob=0.5),
            dict(
                type='RandomChoice',
                transforms=[
                    [dict(type='RandomChoiceResize', scales=scales, keep_ratio=True)],
                    [
                        dict(
                            type='RandomChoiceResize',
                            scales=[(400, 1333), (500, 1333), (600, 1333)],
                            keep_ratio=True,
                        ),
                        dict(
                            type='RandomCrop',
                            crop_type='absolute_range',
                            crop_size=(384, 600),
                            allow_negative_crop=True,
                        ),
                        dict(type='RandomChoiceResize', scales=scales, keep_ratio=True),
                    ],
                ],
            ),
            dict(
                type='RandomCrop',
                crop_type='absolute_range',
                crop_size=(1024, 1024),
                allow_negative_crop=True,
            ),
            dict(type='PackDetInputs'),
        ]
    )
)
_base_.val_dataloader.dataset.pipeline[1].scale = (1333, 800)
_base_.test_dataloader.dataset.pipeline[1].scale = (1333, 800)
