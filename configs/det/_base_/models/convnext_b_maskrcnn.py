# Mask R-CNN on ConvNeXt-B alone at 1024 pixels: the maps are those at the ends of its
# four stages.
_base_ = ['maskrcnn.py', 'convnext_branches.py']

model = dict(
    backbone=dict(
        type='ViTPyramid',
        # Without drop path, unlike the ConvNeXt branches of PIIP: the published config
        # sets none.
        branch=dict(_base_.convnext_base, img_size=1024, drop_path_rate=0.0),
        out_strides=(4, 8, 16, 32),
        out_blocks=(2, 6, 34, 38),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
