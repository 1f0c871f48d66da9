# PIIP-LH6B 1536/1024/512 from DeiT III (L), MAE (H) and InternViT-6B weights: DINO, COCO,
# 24 epochs.
_base_ = [
    '_base_/models/piip_lh6b_dino.py',
    '_base_/datasets/coco_detection_ms_1536.py',
    '_base_/schedules/piip_dino_2x.py',
    '_base_/default_runtime.py',
]
