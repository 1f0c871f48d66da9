# Mask R-CNN on PIIP-LH6B at 1536, 1024 and 512 pixels, with what the published code calls
# its speed-up: 4 interactions without projections and norms, and the tanh approximation
# of GELU, which its fused MLP computes.
_base_ = [
    'piip_maskrcnn.py',
    'deit_branches.py',
    'mae_branches.py',
    'internvit_branches.py',
]

model = dict(
    data_preprocessor=dict(pad_size_divisor=64),
    backbone=dict(
        branches=[
            dict(_base_.deit3_large_384, img_size=1536, mlp_act='gelu_tanh'),
            dict(_base_.mae_huge, img_size=1024, mlp_act='gelu_tanh'),
            dict(_base_.internvit_6b, img_size=512, mlp_act='gelu_tanh'),
        ],
        interaction=dict(proj=False, norm=None),
        num_interactions=4,
    ),
    neck=dict(in_channels=[3200] * 4),
)
