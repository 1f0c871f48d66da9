# Mask R-CNN on ViT-B alone at 1024 pixels: windows of 14 tokens, and global attention in
# every third block.
_base_ = ['maskrcnn.py', 'deit_branches.py']

model = dict(
    backbone=dict(
        type='ViTPyramid',
        branch=dict(
            _base_.deit3_base,
            img_size=1024,
            window_size=14,
            global_attn_indexes=[2, 5, 8, 11],
        ),
        out_strides=(4, 8, 16, 32),
    ),
    neck=dict(in_channels=[768] * 4),
)
