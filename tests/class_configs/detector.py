"""A Mask R-CNN on a small PIIP, as a config of classes.

mmdet cannot read RoIAlign and nms from a config that was saved with their classes.
"""

from mmdet.models import (
    FPN,
    DetDataPreprocessor,
    FCNMaskHead,
    MaskRCNN,
    RPNHead,
    Shared2FCBBoxHead,
    StandardRoIHead,
)
from mmdet.models.losses import CrossEntropyLoss, L1Loss
from mmdet.models.task_modules import (
    AnchorGenerator,
    DeltaXYWHBBoxCoder,
    MaxIoUAssigner,
    RandomSampler,
)
from mmengine.config import read_base
from mmengine.model import PretrainedInit

from piip_mm.models import PIIP, PIIPViT
from piip_mm.models.detection import Float32RoIExtractor

with read_base():
    from .base import *

channels = 32
branch = dict(
    type=PIIPViT,
    arch=dict(embed_dims=32, num_layers=2, num_heads=2),
    pretrain_img_size=64,
)
coder = dict(
    type=DeltaXYWHBBoxCoder, target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2]
)
extractor = dict(
    type=Float32RoIExtractor, out_channels=channels, featmap_strides=[4, 8, 16]
)
rpn_assigner = dict(
    type=MaxIoUAssigner, pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3
)
sampler = dict(type=RandomSampler, num=32, pos_fraction=0.25)
model = dict(
    type=MaskRCNN,
    data_preprocessor=dict(
        type=DetDataPreprocessor,
        mean=[127.5] * 3,
        std=[127.5] * 3,
        pad_mask=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type=PIIP,
        branches=[
            dict(
                **branch,
                img_size=96,
                init_cfg=dict(type=PretrainedInit, checkpoint='deit.pth'),
            ),
            dict(**branch, img_size=64),
        ],
        interaction=dict(num_heads=4),
        num_interactions=2,
        out_strides=(4, 8, 16),
    ),
    neck=dict(type=FPN, in_channels=[32] * 3, out_channels=channels, num_outs=4),
    rpn_head=dict(
        type=RPNHead,
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(
            type=AnchorGenerator, scales=[6], ratios=[1.0], strides=[4, 8, 16, 32]
        ),
        bbox_coder=coder,
        loss_cls=dict(type=CrossEntropyLoss, use_sigmoid=True),
        loss_bbox=dict(type=L1Loss),
    ),
    roi_head=dict(
        type=StandardRoIHead,
        bbox_roi_extractor=dict(
            **extractor, roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0)
        ),
        bbox_head=dict(
            type=Shared2FCBBoxHead,
            in_channels=channels,
            fc_out_channels=64,
            num_classes=3,
            bbox_coder=coder,
            loss_cls=dict(type=CrossEntropyLoss),
            loss_bbox=dict(type=L1Loss),
        ),
        mask_roi_extractor=dict(
            **extractor, roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=0)
        ),
        mask_head=dict(
            type=FCNMaskHead,
            num_convs=1,
            in_channels=channels,
            conv_out_channels=channels,
            num_classes=3,
            loss_mask=dict(type=CrossEntropyLoss, use_mask=True),
        ),
    ),
    train_cfg=dict(
        rpn=dict(
            assigner=rpn_assigner,
            sampler=dict(**sampler, add_gt_as_proposals=False),
            allowed_border=-1,
            pos_weight=-1,
        ),
        rpn_proposal=dict(
            nms_pre=50, max_per_img=20, nms=dict(type='nms', iou_threshold=0.7)
        ),
        rcnn=dict(
            assigner=dict(
                type=MaxIoUAssigner, pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5
            ),
            sampler=dict(**sampler, add_gt_as_proposals=True),
            mask_size=28,
            pos_weight=-1,
        ),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=50, max_per_img=20, nms=dict(type='nms', iou_threshold=0.7)),
        rcnn=dict(
            score_thr=0.0,
            nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=5,
            mask_thr_binary=0.5,
        ),
    ),
)
