# PIIP-SBL 1792/1120/672 from DeiT III weights at 384 pixels: DINO, COCO, 36 epochs.
_base_ = [
    '_base_/models/piip_sbl_dino.py',
    '_base_/datasets/coco_detection_ms_1792.py',
    '_base_/schedules/piip_dino_3x.py',
    '_base_/default_runtime.py',
]
