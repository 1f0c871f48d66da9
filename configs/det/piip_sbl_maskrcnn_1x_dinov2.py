# PIIP-SBL 1568/1120/672 from DINOv2 weights.
_base_ = ['piip_sbl_maskrcnn_1x.py', '_base_/models/dinov2_branches.py']

_base_.model.backbone.branches = [
    dict(_base_.dinov2_small, img_size=1568, window_size=28),
    dict(_base_.dinov2_base, img_size=1120, window_size=28),
    dict(_base_.dinov2_large, img_size=672, window_size=28),
]
