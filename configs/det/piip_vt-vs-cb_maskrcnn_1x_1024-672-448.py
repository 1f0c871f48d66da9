# PIIP-VT-VS-CB 1024/672/448: DeiT-T, DeiT III-S and ConvNeXt-B.
_base_ = [
    '_base_/models/piip_hybrid_maskrcnn.py',
    '_base_/datasets/coco_instance_1024x614.py',
    '_base_/schedules/piip_hybrid_1x.py',
    '_base_/default_runtime.py',
]

_base_.model.backbone.branches = [
    dict(_base_.deit_tiny, img_size=1024, window_size=14),
    dict(_base_.deit3_small, img_size=672, window_size=14),
    dict(_base_.convnext_base, img_size=448),
]
_base_.model.backbone.interaction_ends = [
    _base_.vit_ends,
    _base_.vit_ends,
    _base_.convnext_base_ends,
]
_base_.model.neck.in_channels = [128, 256, 512, 1024]
