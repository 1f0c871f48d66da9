# DINO on PIIP-H6B at 1024 and 768 pixels.
_base_ = ['piip_dino.py', 'mae_branches.py', 'internvit_branches.py']

model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=dict(
        branches=[
            dict(_base_.mae_huge, img_size=1024),
            dict(_base_.internvit_6b, img_size=768),
        ],
        interaction_ends=[_base_.mae_huge_ends, _base_.internvit_6b_ends],
    ),
    neck=dict(in_channels=[3200] * 3),
)
