# PIIP-CT-CS-CB 1024/672/448: ConvNeXt-T, ConvNeXt-S and ConvNeXt-B. This is the only
# hybrid that was published with images of 1333 x 800.
_base_ = [
    '_base_/models/piip_hybrid_maskrcnn.py',
    '_base_/datasets/coco_instance_1333x800.py',
    '_base_/schedules/piip_hybrid_1x.py',
    '_base_/default_runtime.py',
]

_base_.model.backbone.branches = [
    dict(_base_.convnext_tiny, img_size=1024),
    dict(_base_.convnext_small, img_size=672),
    dict(_base_.convnext_base, img_size=448),
]
_base_.model.backbone.interaction_ends = [
    _base_.convnext_tiny_ends,
    _base_.convnext_small_ends,
    _base_.convnext_base_ends,
]
_base_.model.neck.in_channels = [128, 256, 512, 1024]
