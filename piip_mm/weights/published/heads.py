"""Names of heads in mmdet 2 checkpoints to those of mmdet 3.

Mask R-CNN, Cascade R-CNN and UperNet are called the same in both; DINO was taken apart.
"""

from __future__ import annotations

import re

from ..rename import Rule, rename

_ATTENTIONS = {
    ('encoder', '0'): 'self_attn',
    ('decoder', '0'): 'self_attn',
    ('decoder', '1'): 'cross_attn',
}
_OLD = r'bbox_head\.transformer\.'


def _attention(match: re.Match[str]) -> str:
    part, layer, number, name = match.groups()
    return f'{part}.layers.{layer}.{_ATTENTIONS[part, number]}.{name}'


_RULES: list[Rule] = [
    (_OLD + r'level_embeds', 'level_embed'),
    (_OLD + r'query_embed\.(.+)', r'query_embedding.\1'),
    (_OLD + r'enc_output\.(.+)', r'memory_trans_fc.\1'),
    (_OLD + r'enc_output_norm\.(.+)', r'memory_trans_norm.\1'),
    (_OLD + r'(encoder|decoder)\.layers\.(\d+)\.attentions\.([01])\.(.+)', _attention),
    (_OLD + r'((?:en|de)coder\.layers\.\d+)\.ffns\.0\.(.+)', r'\1.ffn.\2'),
    (_OLD + r'((?:en|de)coder\.layers\.\d+\.norms\..+)', r'\1'),
    # Two linear layers with an activation between, which the old name counts.
    (_OLD + r'decoder\.ref_point_head\.0\.(.+)', r'decoder.ref_point_head.layers.0.\1'),
    (_OLD + r'decoder\.ref_point_head\.2\.(.+)', r'decoder.ref_point_head.layers.1.\1'),
    (_OLD + r'(decoder\.norm\..+)', r'\1'),
    (r'bbox_head\.(label_embedding\..+)', r'dn_query_generator.\1'),
    (r'.+', r'\g<0>'),
]


def rename_head(name: str) -> str:
    """New name of a parameter outside the backbone; the same one where it has not
    changed."""
    new_name = rename(name, _RULES)
    assert new_name is not None
    return new_name
