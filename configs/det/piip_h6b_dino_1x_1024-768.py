# PIIP-H6B 1024/768 from MAE (H) and InternViT-6B weights: DINO, COCO, 12 epochs.
_base_ = [
    '_base_/models/piip_h6b_dino.py',
    '_base_/datasets/coco_detection_ms_1024.py',
    '_base_/schedules/piip_dino_1x.py',
    '_base_/default_runtime.py',
]
