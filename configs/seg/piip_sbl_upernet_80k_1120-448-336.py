# PIIP-SBL 1120/448/336, with the schedule of PIIP-H6B. It was not released.
_base_ = [
    '_base_/models/piip_sbl_upernet.py',
    '_base_/datasets/ade20k_1120.py',
    '_base_/schedules/piip_80k.py',
    '_base_/default_runtime.py',
]
