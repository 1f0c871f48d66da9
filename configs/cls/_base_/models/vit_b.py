# ViT-B alone at 224 pixels, for training from scratch (DeiT-B, arXiv 2012.12877).
_base_ = 'piip_classifier.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='ViTPyramid',
        branch=dict(
            type='PIIPViT',
            # As in DeiT: no layer scale, and a position embedding for the class token.
            arch=dict(
                embed_dims=768,
                num_layers=12,
                num_heads=12,
                init_values=None,
                cls_pos_row=True,
            ),
            cls_pos=True,
            img_size=224,
            with_cls_token=True,
            drop_path_rate=0.1,
            drop_path_schedule='linear',
        ),
        out_type='cls_tokens',
    ),
    head=dict(in_channels=[768]),
)
