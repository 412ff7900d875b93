"""Table 2.1, and the rule for what is not in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot.base.config import read_yaml
from fewshot.model.gpt import count_parameters
from fewshot.model.presets import PRESETS, SPARSE_TRANSFORMERS
from fewshot.train.resolving.overrides import laid_over
from fewshot.train.resolving.recipes import RECIPES, optimizer_for, recipe_for, schedule_for
from fewshot.train.resolving.resolve import check_sections, data_config, resolve, wanted_vocab

RUNS = sorted((Path(__file__).parents[3] / "runs").glob("*.yaml"))  # those called meta_ are another command's


@pytest.mark.parametrize(
    ("preset", "lr", "batch_millions"),
    [
        ("gpt3-small", 6.0e-4, 0.5),
        ("gpt3-medium", 3.0e-4, 0.5),
        ("gpt3-large", 2.5e-4, 0.5),
        ("gpt3-xl", 2.0e-4, 1),
        ("gpt3-2.7b", 1.6e-4, 1),
        ("gpt3-6.7b", 1.2e-4, 2),
        ("gpt3-13b", 1.0e-4, 2),
        ("gpt3-175b", 0.6e-4, 3.2),
    ],
)
def test_recipes_are_table_2_1(preset: str, lr: float, batch_millions: float) -> None:
    recipe = RECIPES[preset]
    assert recipe.lr == lr
    assert recipe.batch_tokens == pytest.approx(batch_millions * 1e6, rel=0.05)


def test_every_gpt3_preset_has_a_recipe_and_a_ramp_of_4_to_12_billion_tokens() -> None:
    recipes = {name: recipe for name, recipe in RECIPES.items() if name not in SPARSE_TRANSFORMERS}
    assert set(recipes) == {name for name in PRESETS if name.startswith("gpt3-")}
    ramps = [recipe.ramp_tokens for recipe in recipes.values()]
    assert ramps == sorted(ramps)
    assert (ramps[0], ramps[-1]) == (4_000_000_000, 12_000_000_000)


def test_a_full_run_has_the_papers_clocks_unchanged() -> None:
    schedule = schedule_for(RECIPES["gpt3-175b"], n_tokens=300_000_000_000, n_ctx=2048)
    assert schedule.warmup_tokens == 375_000_000
    assert schedule.decay_tokens == 260_000_000_000
    assert schedule.batch_tokens == 3_200_000
    assert schedule.batch_start_tokens == 32_768
    assert schedule.ramp_tokens == 12_000_000_000
    assert schedule.final_fraction == 0.1


@pytest.mark.parametrize("n_tokens", [50_000, 1_000_000, 100_000_000, 10_000_000_000])
def test_a_shorter_run_keeps_the_shares_of_its_clocks_and_has_enough_steps(n_tokens: int) -> None:
    schedule = schedule_for(RECIPES["gpt3-small"], n_tokens=n_tokens, n_ctx=128)
    assert schedule.decay_tokens == pytest.approx(n_tokens * 260 / 300, rel=1e-3)
    assert schedule.ramp_tokens == pytest.approx(n_tokens * 4 / 300, rel=1e-3, abs=1)
    assert schedule.warmup_tokens == min(375_000_000, n_tokens // 50)
    assert schedule.batch_tokens % 128 == 0
    assert schedule.batch_tokens <= 524_288
    assert schedule.batch_tokens == 128 or n_tokens / schedule.batch_tokens >= 2_000


def test_learning_rate_of_other_sizes_lies_on_the_line_through_the_ends_of_the_table() -> None:
    small = count_parameters(PRESETS["gpt3-small"])["total"]
    large = count_parameters(PRESETS["gpt3-175b"])["total"]
    assert recipe_for(None, small).lr == pytest.approx(6.0e-4)
    assert recipe_for(None, large).lr == pytest.approx(0.6e-4)
    assert recipe_for(None, 1_000_000).lr == pytest.approx(2.8e-3, rel=0.02)
    assert recipe_for(None, 10_000).lr == 3e-3


@pytest.mark.parametrize(
    ("preset", "n_tokens"),
    [
        ("st-enwik8", 7_200_000_000),  # 80 epochs of 90M bytes
        ("st-cifar10", 17_694_720_000),  # 120 epochs of 48,000 images of 3,072 bytes
        ("st-imagenet64", 1_102_008_606_720),  # 70 epochs of 1,281,167 images of 12,288 bytes
    ],
)
def test_a_sparse_transformer_warms_up_for_5000_steps_and_decays_over_its_epochs(preset: str, n_tokens: int) -> None:
    recipe = RECIPES[preset]
    schedule = schedule_for(recipe, n_tokens=n_tokens, n_ctx=PRESETS[preset].n_ctx)
    assert recipe.n_tokens == n_tokens == schedule.decay_tokens
    assert schedule.warmup_tokens == 5000 * schedule.batch_tokens
    assert (schedule.ramp_tokens, schedule.decay, schedule.final_fraction) == (0, "cosine", 0.0)
    optimizer = optimizer_for(recipe, name="adamw")
    assert (optimizer.lr, optimizer.weight_decay, optimizer.clip) == (3.5e-4, 0.01, 1.0)
    longer = schedule_for(recipe, n_tokens=2 * n_tokens, n_ctx=PRESETS[preset].n_ctx)
    assert longer.decay_tokens == 2 * n_tokens  # a rate of 0 over the second half would be a waste


def test_a_shorter_warm_up_keeps_its_share_of_the_run_but_at_least_2_percent() -> None:
    enwik8 = schedule_for(RECIPES["st-enwik8"], n_tokens=720_000_000, n_ctx=12_288)
    assert enwik8.warmup_tokens == 98_304_000  # a tenth of 5,000 steps of 16 rows
    cifar = schedule_for(RECIPES["st-cifar10"], n_tokens=1_769_472_000, n_ctx=3072)
    assert cifar.warmup_tokens == 35_389_440  # 2%; a tenth of 5,000 steps would be 1.4%


def test_a_sparse_transformer_reads_bytes_unless_told_otherwise() -> None:
    assert data_config({"preset": "st-enwik8", "text": "a.txt"}).tokenizer == "bytes"
    assert data_config({"preset": "st-enwik8", "text": "a.txt", "data": {"tokenizer": "chars"}}).tokenizer == "chars"
    assert data_config({"preset": "gpt3-small", "text": "a.txt"}).tokenizer == "bpe"
    assert wanted_vocab({"preset": "st-enwik8"}) == 257


def test_a_published_sparse_transformer_is_trained_with_the_papers_adam() -> None:
    given = {"preset": "st-enwik8", "text": "a.txt", "n_tokens": 7_200_000_000}
    config = resolve(given, data_config(given), n_vocab=257, n_text_tokens=10**8, device="cpu", say=lambda line: None)
    assert config.model == PRESETS["st-enwik8"]
    assert (config.optimizer.name, config.optimizer.lr, config.optimizer.weight_decay) == ("adamw", 3.5e-4, 0.01)
    assert config.schedule.batch_tokens == 16 * 12_288


@pytest.mark.parametrize(
    "path", [path for path in RUNS if not path.stem.startswith("meta_")], ids=lambda path: path.stem
)
def test_every_run_of_training_resolves_without_an_unknown_key(path: Path) -> None:
    given = laid_over([(path.name, read_yaml(path)), ("the options", {"text": ["a.txt"]})], say=lambda line: None)
    check_sections(given)
    said: list[str] = []
    config = resolve(given, data_config(given), n_vocab=66, n_text_tokens=10**6, device="cpu", say=said.append)
    assert config.schedule.n_tokens >= 300_000
    assert said


TABLE_2 = {"dense": "dense", "fixed": "fixed(128, 32)", "strided": "alternate(banded(128), strided(128))"}


def test_the_three_runs_of_table_2_differ_in_their_pattern_alone() -> None:
    runs = [read_yaml(Path(__file__).parents[3] / "runs" / f"st_text_{kind}.yaml") for kind in TABLE_2]
    assert [run["model"].pop("pattern") for run in runs] == list(TABLE_2.values())
    assert runs[0] == runs[1] == runs[2]
