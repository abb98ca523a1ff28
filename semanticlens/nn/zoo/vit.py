"""Vision transformers, with the names of timm and of torchvision.

Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021; DeiT (Touvron et al., ICML 2021), DINO and MAE share the
network of timm's names and differ in their weights and in how pictures are normalised, so no preprocessing comes with it.
"""

from __future__ import annotations

from functools import partial

from semanticlens.nn.zoo.builder import ANY, Architecture, Builder, torchvision_preprocess

EPS = 1e-6
SIDE, PATCH = 14, 16
SIZES = {"tiny": (192, 3, 12), "small": (384, 6, 12), "base": (768, 12, 12), "large": (1024, 16, 24)}


def _tokens(b: Builder, dim: int, patch: str, cls: str, places: str) -> str:
    """Patches behind the class token, with their places."""
    x = b.conv(patch, "input", 3, dim, PATCH, PATCH, 0, bias=True)
    x = b.op(f"{patch}.flat", "reshape", x, shape=(dim, SIDE * SIDE))
    x = b.op("patches", "permute", x, axes=(2, 1))
    token = b.op("class_token_", "constant", x, {"value": b.view(cls, (1, 1, dim), (1, dim))})
    x = b.op("tokens", "concat", (token, x), axis=1)
    count = SIDE * SIDE + 1
    return b.op("embedding", "scale_shift", x, {"shift": b.view(places, (1, count, dim), (count, dim))})


def _attention(b: Builder, at: str, x: str, dim: int, heads: int, weight: str, bias: str, out: str) -> str:
    fused = b.op(f"{at}.qkv", "dense", x, {"weight": b.expect(weight, 3 * dim, dim), "bias": b.expect(bias, 3 * dim)})
    parts = []
    for n, part in enumerate("qkv"):
        piece = b.op(f"{at}.{part}.part", "slice", fused, axis=2, start=n * dim, stop=(n + 1) * dim)
        piece = b.op(f"{at}.{part}.split", "reshape", piece, shape=(-1, heads, dim // heads))
        parts.append(b.op(f"{at}.{part}", "permute", piece, axes=(2, 1, 3)))
    x = b.op(f"{at}.attention", "attention", parts)
    x = b.op(f"{at}.joined", "reshape", b.op(f"{at}.turned", "permute", x, axes=(2, 1, 3)), shape=(-1, dim))
    return b.dense(out, x, dim, dim)


def _timm(b: Builder, dim: int, heads: int, depth: int) -> None:
    x = _tokens(b, dim, "patch_embed.proj", "cls_token", "pos_embed")
    for i in range(depth):
        at = f"blocks.{i}"
        h = b.layer_norm(f"{at}.norm1", x, dim, EPS)
        h = _attention(b, f"{at}.attn", h, dim, heads, f"{at}.attn.qkv.weight", f"{at}.attn.qkv.bias", f"{at}.attn.proj")
        x = b.op(f"{at}.middle", "add", (x, h))
        h = b.dense(f"{at}.mlp.fc1", b.layer_norm(f"{at}.norm2", x, dim, EPS), dim, 4 * dim)
        h = b.dense(f"{at}.mlp.fc2", b.op(f"{at}.mlp.act", "gelu", h), 4 * dim, dim)
        x = b.op(at, "add", (x, h))
    x = b.op("fc_norm", "select", b.layer_norm("norm", x, dim, EPS), axis=1, index=0)
    b.dense("head", x, dim, ANY)


def _torchvision(b: Builder, dim: int, heads: int, depth: int) -> None:
    x = _tokens(b, dim, "conv_proj", "class_token", "encoder.pos_embedding")
    for i in range(depth):
        at = f"encoder.layers.encoder_layer_{i}"
        own = f"{at}.self_attention"
        h = b.layer_norm(f"{at}.ln_1", x, dim, EPS)
        h = _attention(b, own, h, dim, heads, f"{own}.in_proj_weight", f"{own}.in_proj_bias", f"{own}.out_proj")
        x = b.op(f"{at}.middle", "add", (x, h))
        h = b.dense(f"{at}.mlp.0", b.layer_norm(f"{at}.ln_2", x, dim, EPS), dim, 4 * dim)
        h = b.dense(f"{at}.mlp.3", b.op(f"{at}.mlp.1", "gelu", h), 4 * dim, dim)
        x = b.op(at, "add", (x, h))
    x = b.op("class", "select", b.layer_norm("encoder.ln", x, dim, EPS), axis=1, index=0)
    b.dense("heads.head", x, dim, ANY)


ARCHITECTURES = [
    *(
        Architecture(f"vit_{name}_patch16_224", "ViT", partial(_timm, dim=dim, heads=heads, depth=depth), (3, 224, 224))
        for name, (dim, heads, depth) in SIZES.items()
    ),
    Architecture(
        "vit_b_16", "ViT", partial(_torchvision, dim=768, heads=12, depth=12), (3, 224, 224), torchvision_preprocess()
    ),
]
