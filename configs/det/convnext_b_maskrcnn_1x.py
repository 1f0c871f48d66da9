# The baseline ConvNeXt-B: Mask R-CNN, COCO, 12 epochs. There is no layer-wise decay: all
# parameters have the same learning rate and weight decay.
_base_ = [
    '_base_/models/convnext_b_maskrcnn.py',
    '_base_/datasets/coco_instance_1024x614.py',
    '_base_/schedules/piip_1x.py',
    '_base_/default_runtime.py',
]

optim_wrapper = dict(constructor='DefaultOptimWrapperConstructor', paramwise_cfg=None)
