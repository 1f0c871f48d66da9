# DINO on PIIP-SBL at 1792, 1120 and 672 pixels from weights at 384 pixels. Every third
# block attends globally, the others attend in windows of 24 tokens.
_base_ = ['piip_dino.py', 'deit_branches.py']

every_third = [2, 5, 8, 11]

model = dict(
    data_preprocessor=dict(pad_size_divisor=224),
    backbone=dict(
        branches=[
            dict(
                _base_.deit3_small_384,
                img_size=1792,
                window_size=24,
                global_attn_indexes=every_third,
            ),
            dict(
                _base_.deit3_base_384,
                img_size=1120,
                window_size=24,
                global_attn_indexes=every_third,
            ),
            dict(
                _base_.deit3_large_384,
                img_size=672,
                window_size=24,
                global_attn_indexes=[*every_third, 14, 17, 20, 23],
            ),
        ]
    ),
    neck=dict(in_channels=[1024] * 3),
)
