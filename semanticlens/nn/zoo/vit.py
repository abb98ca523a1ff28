"""Vision transformers, with the names of timm and of torchvision.

Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021; DeiT (Touvron et al., ICML 2021), DINO and MAE share the
network of timm's names and differ in their weights and in how pictures are normalised, so no preprocessing comes with it.
``_features`` has no head: its output is the class token, as the weights of DINO and MAE come.  ``_clip`` is the image tower
of CLIP with its projection as head, with GELU, or with the sigmoid form that OpenAI's weights were trained with.
"""

from __future__ import annotations

from functools import partial

from semanticlens.nn.preprocess import Preprocess
from semanticlens.nn.zoo.builder import ANY, Architecture, Builder, torchvision_preprocess

EPS = 1e-6
PICTURE = 224
SIZES = {"tiny": (192, 3, 12), "small": (384, 6, 12), "base": (768, 12, 12), "large": (1024, 16, 24)}
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def _tokens(b: Builder, dim: int, size: int, patch: str, cls: str, places: str, bias: bool = True) -> str:
    """Patches behind the class token, with their places."""
    count = (PICTURE // size) ** 2
    x = b.conv(patch, "input", 3, dim, size, size, 0, bias=bias)
    x = b.op(f"{patch}.flat", "reshape", x, shape=(dim, count))
    x = b.op("patches", "permute", x, axes=(2, 1))
    token = b.op("class_token_", "constant", x, {"value": b.view(cls, (1, 1, dim), (1, dim))})
    x = b.op("tokens", "concat", (token, x), axis=1)
    return b.op("embedding", "scale_shift", x, {"shift": b.view(places, (1, count + 1, dim), (count + 1, dim))})


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


def _timm(b: Builder, dim: int, heads: int, depth: int, patch: int, head: bool = True, clip: str = "") -> None:
    """``clip`` is the activation of a network that was trained with texts: it starts with a norm, and its patches have no bias."""
    eps, act = (1e-5, clip) if clip else (EPS, "gelu")
    x = _tokens(b, dim, patch, "patch_embed.proj", "cls_token", "pos_embed", not clip)
    b.alias(patch_embed="patches", pos_drop=x)
    x = b.layer_norm("norm_pre", x, dim, eps) if clip else x
    for i in range(depth):
        at = f"blocks.{i}"
        h = b.layer_norm(f"{at}.norm1", x, dim, eps)
        h = _attention(b, f"{at}.attn", h, dim, heads, f"{at}.attn.qkv.weight", f"{at}.attn.qkv.bias", f"{at}.attn.proj")
        x = b.op(f"{at}.middle", "add", (x, h))
        h = b.dense(f"{at}.mlp.fc1", b.layer_norm(f"{at}.norm2", x, dim, eps), dim, 4 * dim)
        h = b.dense(f"{at}.mlp.fc2", b.op(f"{at}.mlp.act", act, h), 4 * dim, dim)
        b.alias(**{f"{at}.attn": f"{at}.attn.proj", f"{at}.mlp": h})
        x = b.op(at, "add", (x, h))
    x = b.op("fc_norm", "select", b.layer_norm("norm", x, dim, eps), axis=1, index=0)
    if head:
        b.dense("head", x, dim, ANY)


def _torchvision(b: Builder, dim: int, heads: int, depth: int, patch: int) -> None:
    x = _tokens(b, dim, patch, "conv_proj", "class_token", "encoder.pos_embedding")
    for i in range(depth):
        at = f"encoder.layers.encoder_layer_{i}"
        own = f"{at}.self_attention"
        h = b.layer_norm(f"{at}.ln_1", x, dim, EPS)
        h = _attention(b, own, h, dim, heads, f"{own}.in_proj_weight", f"{own}.in_proj_bias", f"{own}.out_proj")
        b.alias(**{f"{at}.dropout": h})
        x = b.op(f"{at}.middle", "add", (x, h))
        h = b.dense(f"{at}.mlp.0", b.layer_norm(f"{at}.ln_2", x, dim, EPS), dim, 4 * dim)
        h = b.dense(f"{at}.mlp.3", b.op(f"{at}.mlp.1", "gelu", h), 4 * dim, dim)
        b.alias(**{f"{at}.mlp": h, f"{at}.mlp.2": f"{at}.mlp.1", f"{at}.mlp.4": h})
        x = b.op(at, "add", (x, h))
    b.alias(**{"encoder.dropout": "embedding", "encoder.layers": x, "encoder": "encoder.ln"})
    x = b.op("class", "select", b.layer_norm("encoder.ln", x, dim, EPS), axis=1, index=0)
    b.alias(heads=b.dense("heads.head", x, dim, ANY))


ARCHITECTURES = [
    *(
        Architecture(
            f"vit_{name}_patch{patch}_224{ending}",
            "ViT",
            partial(_timm, dim=dim, heads=heads, depth=depth, patch=patch, head=not ending),
            (3, PICTURE, PICTURE),
        )
        for name, (dim, heads, depth) in SIZES.items()
        for patch in (8, 16, 32)
        for ending in ("", "_features")
    ),
    *(
        Architecture(
            f"vit_{name}_patch{patch}_clip{'_quickgelu' if act == 'quick_gelu' else ''}_224",
            "ViT",
            partial(_timm, dim=dim, heads=heads, depth=depth, patch=patch, clip=act),
            (3, PICTURE, PICTURE),
            Preprocess((PICTURE, PICTURE), "crop", short=PICTURE, interpolation="bicubic", mean=CLIP_MEAN, std=CLIP_STD),
            detected=False,
        )
        for name, patch in (("base", 32), ("base", 16))
        for dim, heads, depth in (SIZES[name],)
        for act in ("gelu", "quick_gelu")
    ),
    *(
        Architecture(
            f"vit_{name[0]}_{patch}",
            "ViT",
            partial(_torchvision, dim=dim, heads=heads, depth=depth, patch=patch),
            (3, PICTURE, PICTURE),
            torchvision_preprocess(),
        )
        for name, (dim, heads, depth) in SIZES.items()
        for patch in (16, 32)
        if name in ("base", "large")
    ),
]
