# The baseline ViT-B: Mask R-CNN, COCO, 12 epochs.
_base_ = [
    '_base_/models/vit_b_maskrcnn.py',
    '_base_/datasets/coco_instance_1024x614.py',
    '_base_/schedules/piip_1x.py',
    '_base_/default_runtime.py',
]

optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.95))
