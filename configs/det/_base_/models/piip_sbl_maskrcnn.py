# Mask R-CNN on PIIP-SBL at 1568, 1120 and 672 pixels. Configs for other sizes set
# img_size of the branches.
_base_ = ['piip_maskrcnn.py', 'deit_branches.py']

model = dict(
    backbone=dict(
        branches=[
            dict(_base_.deit3_small, img_size=1568, window_size=28),
            dict(_base_.deit3_base, img_size=1120, window_size=28),
            dict(_base_.deit3_large, img_size=672, window_size=28),
        ]
    ),
    neck=dict(in_channels=[1024] * 4),
)
