# Mask R-CNN on PIIP. What builds on it adds backbone.branches and sets neck.in_channels
# to the width of the last branch.
_base_ = 'maskrcnn.py'

model = dict(
    data_preprocessor=dict(pad_size_divisor=224),
    backbone=dict(
        type='PIIP',
        interaction=dict(
            attn='deform',
            num_heads=16,
            num_points=4,
            value_ratio=0.5,
            ffn_ratio=0.25,
            drop_path_rate=0.4,
            direction='neighbours',
        ),
        num_interactions=12,
        out_strides=(4, 8, 16, 32),
    ),
)
