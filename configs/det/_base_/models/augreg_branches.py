# The branches of the published AugReg models (arXiv 2106.10270), pretrained on
# ImageNet-21k and fine-tuned on ImageNet-1k at 384 pixels; configs add img_size and
# window_size. The published recipe names copies of these files in PyTorch format.
augreg_small = dict(
    type='PIIPViT',
    arch='augreg_small',
    pretrain_img_size=384,
    drop_path_rate=0.2,
    drop_path_schedule='linear',
    with_cp=True,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='timm://vit_small_patch16_384.augreg_in21k_ft_in1k',
    ),
)
augreg_base = dict(
    type='PIIPViT',
    arch='augreg_base',
    pretrain_img_size=384,
    drop_path_rate=0.3,
    drop_path_schedule='linear',
    with_cp=True,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='timm://vit_base_patch16_384.augreg_in21k_ft_in1k',
    ),
)
augreg_large = dict(
    type='PIIPViT',
    arch='augreg_large',
    pretrain_img_size=384,
    drop_path_rate=0.4,
    drop_path_schedule='linear',
    with_cp=True,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='timm://vit_large_patch16_384.augreg_in21k_ft_in1k',
    ),
)
