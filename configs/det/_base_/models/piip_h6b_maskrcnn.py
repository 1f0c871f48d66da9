# Mask R-CNN on PIIP-H6B at 1024 and 512 pixels.
_base_ = ['piip_maskrcnn.py', 'mae_branches.py', 'internvit_branches.py']

model = dict(
    data_preprocessor=dict(pad_size_divisor=64),
    backbone=dict(
        branches=[
            dict(_base_.mae_huge, img_size=1024),
            dict(_base_.internvit_6b, img_size=512),
        ],
        interaction_ends=[_base_.mae_huge_ends, _base_.internvit_6b_ends],
    ),
    neck=dict(in_channels=[3200] * 4),
)
