"""The published models, as one literal table, and a few tiny ones for a laptop.

Two entries of GPT-3's Table 2.1 cannot hold, as its own Table D.1 shows: 13B has d_model 5120 = 40 x 128 (printed
5140), and XL's attention is 2048 wide (printed 24 heads of 128 = 3072), so it is built with 16 heads of 128.
The paper does not publish the band: 256 follows GPT-Neo, the closest public descendant.

Sparse Transformers (Child et al. 2019, section 7) read bytes: 256 values and one for the end of a document, which is
ours. Strided attention alternates its two steps over the layers, as OpenAI's two modes do; fixed attention is merged,
with a sub-block of columns of its own for every fourth head. Not published, so ours: the stride of CIFAR-10 (a row of
the image, 32 pixels of 3 bytes) and of the music models (the square root of n_ctx), and the music models' layers, width
and heads, which give the published counts; their width is one of the paper's 256, 512 and 1024.
"""

from __future__ import annotations

from fewshot.model.config import GPTConfig

GPT3_PATTERN = "alternate(dense, banded(256))"


def _gpt2(n_layers: int, d_model: int, n_heads: int) -> GPTConfig:
    return GPTConfig(n_layers=n_layers, d_model=d_model, n_heads=n_heads, n_ctx=1024, dropout=0.1)


def _gpt3(n_layers: int, d_model: int, n_heads: int, d_head: int) -> GPTConfig:
    return GPTConfig(n_layers=n_layers, d_model=d_model, n_heads=n_heads, d_head=d_head, pattern=GPT3_PATTERN)


def _sparse(
    n_layers: int, d_model: int, n_heads: int, n_ctx: int, pattern: str, positions: str, *,
    d_qk: int | None = None, d_ff: int | None = None, dropout: float = 0.0,
) -> GPTConfig:  # fmt: skip
    return GPTConfig(
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        n_ctx=n_ctx,
        n_vocab=257,
        d_ff=d_ff,
        d_qk=d_qk,
        pattern=pattern,
        positions=positions,
        block="sparse-transformer",
        tied=False,
        dropout=dropout,
    )


def _strided(stride: int) -> str:
    return f"alternate(banded({stride}), strided({stride}))"


ENWIK8_PATTERN = (
    "perhead(fixed(128, 32), block(128) | columns(128, 32, 1), block(128) | columns(128, 32, 2), "
    "block(128) | columns(128, 32, 3))"
)


def _tiny(n_layers: int, d_model: int, n_heads: int, n_ctx: int, window: int) -> GPTConfig:
    return GPTConfig(
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        n_ctx=n_ctx,
        n_vocab=4096,
        pattern=f"alternate(dense, banded({window}))",
    )


SPARSE_TRANSFORMERS: dict[str, GPTConfig] = {
    "st-enwik8": _sparse(30, 512, 8, 12_288, ENWIK8_PATTERN, "rows(128)", dropout=0.40),
    "st-cifar10": _sparse(128, 256, 2, 3072, _strided(96), "image(32, 32, 3)", d_qk=64, d_ff=512, dropout=0.25),
    "st-imagenet64": _sparse(48, 512, 16, 12_288, _strided(128), "image(64, 64, 3)", dropout=0.01),
    "st-music-65k": _sparse(48, 512, 16, 65_536, _strided(256), "rows(256)"),
    "st-music-262k": _sparse(31, 256, 8, 262_144, _strided(512), "rows(512)"),
    "st-music-1m": _sparse(3, 256, 8, 1_048_576, _strided(1024), "rows(1024)"),
}

PUBLISHED: dict[str, GPTConfig] = {
    "gpt1": GPTConfig(n_layers=12, d_model=768, n_heads=12, n_ctx=512, n_vocab=40478, block="post-ln", dropout=0.1),
    "gpt2-small": _gpt2(12, 768, 12),
    "gpt2-medium": _gpt2(24, 1024, 16),
    "gpt2-large": _gpt2(36, 1280, 20),
    "gpt2-xl": _gpt2(48, 1600, 25),
    "gpt3-small": _gpt3(12, 768, 12, 64),
    "gpt3-medium": _gpt3(24, 1024, 16, 64),
    "gpt3-large": _gpt3(24, 1536, 16, 96),
    "gpt3-xl": _gpt3(24, 2048, 16, 128),
    "gpt3-2.7b": _gpt3(32, 2560, 32, 80),
    "gpt3-6.7b": _gpt3(32, 4096, 32, 128),
    "gpt3-13b": _gpt3(40, 5120, 40, 128),
    "gpt3-175b": _gpt3(96, 12288, 96, 128),
    **SPARSE_TRANSFORMERS,
}

TINY: dict[str, GPTConfig] = {
    "tiny-1m": _tiny(4, 128, 4, 128, 32),
    "tiny-4m": _tiny(4, 256, 4, 256, 64),
    "tiny-10m": _tiny(6, 320, 5, 256, 64),
    "tiny-30m": _tiny(8, 512, 8, 512, 128),
}

PRESETS: dict[str, GPTConfig] = {**PUBLISHED, **TINY}
