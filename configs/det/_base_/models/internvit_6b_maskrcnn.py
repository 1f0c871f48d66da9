# Mask R-CNN on InternViT-6B alone at 1024 pixels, with global attention.
_base_ = ['maskrcnn.py', 'internvit_branches.py']

model = dict(
    backbone=dict(
        type='ViTPyramid',
        branch=dict(_base_.internvit_6b, img_size=1024),
        out_strides=(4, 8, 16, 32),
    ),
    neck=dict(in_channels=[3200] * 4),
)
