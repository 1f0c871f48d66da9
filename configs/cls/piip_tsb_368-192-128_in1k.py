# PIIP-TSB 368/192/128 from DeiT weights: ImageNet-1k, 20 epochs.
_base_ = [
    '_base_/models/piip_tsb.py',
    '_base_/datasets/imagenet_368.py',
    '_base_/schedules/piip_20e.py',
    '_base_/default_runtime.py',
]
