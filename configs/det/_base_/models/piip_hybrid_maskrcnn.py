# Mask R-CNN on PIIP of ConvNeXt and DeiT branches, with a regular pyramid: each level is
# merged on its own, after the interactions that follow the four stages of a ConvNeXt. A
# config adds backbone.branches and backbone.interaction_ends and sets neck.in_channels to
# the widths of the last branch after these interactions.
_base_ = ['piip_maskrcnn.py', 'deit_branches.py', 'convnext_branches.py']

model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        pad_size_divisor=32,
    ),
    backbone=dict(out_interactions=(0, 1, 10)),
)
