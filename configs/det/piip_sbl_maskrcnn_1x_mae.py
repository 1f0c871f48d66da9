# PIIP-SBL 1568/1120/672 from DeiT III (S) and MAE (B, L) weights.
_base_ = ['piip_sbl_maskrcnn_1x.py', '_base_/models/mae_branches.py']

_base_.model.backbone.branches = [
    dict(_base_.deit3_small, img_size=1568, window_size=28),
    dict(_base_.mae_base, img_size=1120, window_size=28),
    dict(_base_.mae_large, img_size=672, window_size=28),
]
