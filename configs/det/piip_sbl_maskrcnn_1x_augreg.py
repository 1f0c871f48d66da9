# PIIP-SBL 1568/1120/672 from AugReg weights at 384 pixels.
_base_ = ['piip_sbl_maskrcnn_1x.py', '_base_/models/augreg_branches.py']

_base_.model.backbone.branches = [
    dict(_base_.augreg_small, img_size=1568, window_size=28),
    dict(_base_.augreg_base, img_size=1120, window_size=28),
    dict(_base_.augreg_large, img_size=672, window_size=28),
]
