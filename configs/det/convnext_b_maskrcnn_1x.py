# The baseline ConvNeXt-B: Mask R-CNN, COCO, 12 epochs. Without layer decay: one rate, and
# weight decay for all parameters.
_base_ = [
    '_base_/models/convnext_b_maskrcnn.py',
    '_base_/datasets/coco_instance_1024x614.py',
    '_base_/schedules/piip_1x.py',
    '_base_/default_runtime.py',
]

optim_wrapper = dict(constructor='DefaultOptimWrapperConstructor', paramwise_cfg=None)
