# The branches of the published DINOv2 models (arXiv 2304.07193); configs add img_size and
# window_size. Patches are resized from 14 to 16 pixels; the position embedding is stored
# for images of 518 pixels and patches of 16, as published.
dinov2_small = dict(
    type='PIIPViT',
    arch='dinov2_small',
    pretrain_img_size=518,
    drop_path_rate=0.2,
    drop_path_schedule='linear',
    with_cp=True,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth',
    ),
)
dinov2_base = dict(
    type='PIIPViT',
    arch='dinov2_base',
    pretrain_img_size=518,
    drop_path_rate=0.3,
    drop_path_schedule='linear',
    with_cp=True,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth',
    ),
)
dinov2_large = dict(
    type='PIIPViT',
    arch='dinov2_large',
    pretrain_img_size=518,
    drop_path_rate=0.4,
    drop_path_schedule='linear',
    with_cp=True,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth',
    ),
)
