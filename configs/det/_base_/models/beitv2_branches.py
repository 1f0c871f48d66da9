# The branches of the published BEiT v2 models (arXiv 2208.06366), pretrained on
# ImageNet-1k and fine-tuned on ImageNet-21k; configs add img_size and window_size.
beitv2_base = dict(
    type='PIIPBEiT',
    arch='beitv2_base',
    drop_path_rate=0.15,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/'
        'beitv2_base_patch16_224_pt1k_ft21k.pth',
    ),
)
beitv2_large = dict(
    type='PIIPBEiT',
    arch='beitv2_large',
    drop_path_rate=0.4,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://github.com/addf400/files/releases/download/BEiT-v2/'
        'beitv2_large_patch16_224_pt1k_ft21k.pth',
    ),
)
