# The baseline InternViT-6B: Mask R-CNN, COCO, 12 epochs, multi-scale training.
_base_ = [
    '_base_/models/internvit_6b_maskrcnn.py',
    '_base_/datasets/coco_instance_ms_1024.py',
    '_base_/schedules/piip_1x.py',
    '_base_/default_runtime.py',
]

optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.95))
