# Mask R-CNN on PIIP with ConvNeXt and DeiT branches and a regular pyramid: each level has
# its own merge, after the interactions that follow the four stages of a ConvNeXt. Configs
# that inherit from it add backbone.branches and backbone.interaction_ends and set
# neck.in_channels to the widths of the last branch after these interactions.
_base_ = ['piip_maskrcnn.py', 'deit_branches.py', 'convnext_branches.py']

model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        pad_size_divisor=32,
    ),
    backbone=dict(out_interactions=(0, 1, 10)),
)
