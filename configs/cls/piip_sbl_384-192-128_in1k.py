# PIIP-SBL 384/192/128 from AugReg weights: ImageNet-1k, 20 epochs.
_base_ = [
    '_base_/models/piip_sbl.py',
    '_base_/datasets/imagenet.py',
    '_base_/schedules/piip_20e.py',
    '_base_/default_runtime.py',
]
