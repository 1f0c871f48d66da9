# The baseline ViT-B, with the schedule of PIIP-H6B. It was not released.
_base_ = [
    '_base_/models/vit_b_upernet.py',
    '_base_/datasets/ade20k_640.py',
    '_base_/schedules/piip_80k.py',
    '_base_/default_runtime.py',
]
