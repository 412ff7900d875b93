"""The published sizes. Exact counts follow from the architecture; Table D.1 is GPT-3's own (Brown et al. 2020)."""

from __future__ import annotations

import pytest

from fewshot.model.coordinates import table_sizes
from fewshot.model.gpt import count_parameters
from fewshot.model.plan import make_plan
from fewshot.model.presets import ENWIK8_PATTERN, PRESETS
from fewshot.patterns.pattern import Banded, Block, Columns, Dense, Strided

# total, and without the embeddings
COUNTS = {
    "gpt2-small": (124_439_808, 85_056_000),
    "gpt2-medium": (354_823_168, 302_311_424),
    "gpt2-large": (774_030_080, 708_390_400),
    "gpt2-xl": (1_557_611_200, 1_475_561_600),
    "gpt3-small": (125_226_240, 85_056_000),
    "gpt3-medium": (355_871_744, 302_311_424),
    "gpt3-large": (760_300_032, 679_959_552),
    "gpt3-xl": (1_315_723_264, 1_208_602_624),
    "gpt3-2.7b": (2_651_553_280, 2_517_652_480),
    "gpt3-6.7b": (6_658_404_352, 6_444_163_072),
    "gpt3-13b": (12_853_386_240, 12_585_584_640),
    "gpt3-175b": (174_604_259_328, 173_961_535_488),
}

# Table D.1 as printed: millions of parameters, FLOPs, PF-days, for 300 billion tokens
TABLE_D1 = {
    "gpt3-small": (125, "2.25E+20", "2.60E+00"),
    "gpt3-medium": (356, "6.41E+20", "7.42E+00"),
    "gpt3-large": (760, "1.37E+21", "1.58E+01"),
    "gpt3-xl": (1320, "2.38E+21", "2.75E+01"),
    "gpt3-2.7b": (2650, "4.77E+21", "5.52E+01"),
    "gpt3-6.7b": (6660, "1.20E+22", "1.39E+02"),
    "gpt3-13b": (12850, "2.31E+22", "2.68E+02"),
    "gpt3-175b": (174600, "3.14E+23", "3.64E+03"),
}

# n_layers, d_model, n_heads, d_head; 13B and XL as Table D.1 needs them, not as Table 2.1 prints them
TABLE_2_1 = {
    "gpt3-small": (12, 768, 12, 64),
    "gpt3-medium": (24, 1024, 16, 64),
    "gpt3-large": (24, 1536, 16, 96),
    "gpt3-xl": (24, 2048, 16, 128),
    "gpt3-2.7b": (32, 2560, 32, 80),
    "gpt3-6.7b": (32, 4096, 32, 128),
    "gpt3-13b": (40, 5120, 40, 128),
    "gpt3-175b": (96, 12288, 96, 128),
}


@pytest.mark.parametrize("name", COUNTS)
def test_gpt2_and_gpt3_have_their_published_number_of_parameters(name: str) -> None:
    total, non_embedding = COUNTS[name]
    assert count_parameters(PRESETS[name]) == {"total": total, "non_embedding": non_embedding}


def test_gpt1_has_its_published_number_of_parameters() -> None:
    assert count_parameters(PRESETS["gpt1"])["total"] == 116_534_784
    assert (PRESETS["gpt1"].n_ctx, PRESETS["gpt1"].n_vocab, PRESETS["gpt1"].block) == (512, 40478, "post-ln")


@pytest.mark.parametrize("name", TABLE_D1)
def test_the_plan_agrees_with_table_d1(name: str) -> None:
    millions, flops, pf_days = TABLE_D1[name]
    plan = make_plan(name, PRESETS[name])
    step = 1 if millions < 1000 else 10  # the table rounds to millions, and to ten millions from a billion on
    rounded = step * round(plan.n_parameters / (step * 1e6))
    assert rounded == millions
    # The table's costs are made of its rounded parameters; the plan's of the exact ones.
    share = rounded * 1e6 / plan.n_parameters
    assert f"{plan.flops * share:.2E}" == flops
    assert f"{plan.pf_days * share:.2E}" == pf_days
    assert plan.flops == pytest.approx(float(flops), rel=5e-3)


@pytest.mark.parametrize("name", TABLE_2_1)
def test_gpt3_has_the_shapes_of_table_2_1(name: str) -> None:
    config = PRESETS[name]
    assert (config.n_layers, config.d_model, config.n_heads, config.head_width) == TABLE_2_1[name]
    assert (config.n_ctx, config.n_vocab, config.ff_width) == (2048, 50257, 4 * config.d_model)


def test_gpt3_alternates_dense_and_banded_layers_and_gpt2_is_dense() -> None:
    schedule = PRESETS["gpt3-175b"].schedule()
    assert [schedule.for_layer(i) for i in range(4)] == [Dense(), Banded(256), Dense(), Banded(256)]
    assert PRESETS["gpt2-xl"].schedule().for_layer(1) == Dense()


# Millions of parameters: as printed, and as computed from the published shape (where there is one)
SPARSE = {
    "st-enwik8": (95, 94.4),
    "st-cifar10": (59, 58.7),
    "st-imagenet64": (152, 151),
    "st-music-65k": (152, None),
    "st-music-262k": (25, None),
    "st-music-1m": (3, None),
}


@pytest.mark.parametrize("name", SPARSE)
def test_sparse_transformers_have_their_published_number_of_parameters(name: str) -> None:
    printed, computed = SPARSE[name]
    total = count_parameters(PRESETS[name])["total"] / 1e6
    assert total == pytest.approx(printed, rel=0.01)
    assert computed is None or total == pytest.approx(computed, rel=0.01)


# n_layers, d_model, n_heads, d_ff, attention widths of query and value, n_ctx, dropout (Child et al. 2019, section 7)
SECTION_7 = {
    "st-enwik8": (30, 512, 8, 2048, 512, 512, 12_288, 0.40),
    "st-cifar10": (128, 256, 2, 512, 128, 256, 3072, 0.25),
    "st-imagenet64": (48, 512, 16, 2048, 512, 512, 12_288, 0.01),
}


@pytest.mark.parametrize("name", SECTION_7)
def test_sparse_transformers_have_the_shapes_of_section_7(name: str) -> None:
    c = PRESETS[name]
    widths = (c.n_heads * c.qk_width, c.n_heads * c.head_width)
    assert (c.n_layers, c.d_model, c.n_heads, c.ff_width, *widths, c.n_ctx, c.dropout) == SECTION_7[name]
    assert (c.block, c.tied, c.n_vocab) == ("sparse-transformer", False, 257)


def test_positions_of_sparse_transformers_are_rows_and_columns_or_pixels() -> None:
    contexts = {name: PRESETS[name].n_ctx for name in SPARSE if name.startswith("st-music")}
    assert contexts == {"st-music-65k": 65_536, "st-music-262k": 262_144, "st-music-1m": 1_048_576}
    sizes = [table_sizes(PRESETS[name].positions, n_ctx=PRESETS[name].n_ctx) for name in SPARSE]
    assert sizes == [(96, 128), (32, 32, 3), (64, 64, 3), (256, 256), (512, 512), (1024, 1024)]


def test_enwik8_is_fixed_and_merged_and_its_heads_read_distinct_columns() -> None:
    pattern = PRESETS["st-enwik8"].schedule().for_layer(17)
    assert pattern.text == ENWIK8_PATTERN
    for h in range(8):
        block, columns = pattern.for_head(h).parts
        assert (block, columns) == (Block(128), Columns(128, 32, h % 4))
    everything = {k for h in range(4) for k in range(128) if pattern.for_head(h).allows(200, k)}
    assert everything == set(range(128))  # together the heads read the whole block before


def test_strided_models_alternate_the_two_steps_over_the_layers() -> None:
    schedule = PRESETS["st-imagenet64"].schedule()
    assert [schedule.for_layer(i) for i in range(3)] == [Banded(128), Strided(128), Banded(128)]
    assert PRESETS["st-cifar10"].schedule().for_layer(1) == Strided(32 * 3)  # the same column, in every row above


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("tiny-")])
def test_a_tiny_model_has_about_the_parameters_in_its_name(name: str) -> None:
    millions = int(name.removeprefix("tiny-").removesuffix("m"))
    assert count_parameters(PRESETS[name])["total"] == pytest.approx(millions * 1e6, rel=0.35)
