"""Every learner has words and a look of its own."""

from __future__ import annotations

from fewshot.meta.learners.weight_learner import LEARNERS as PUBLISHED
from fewshot.meta.names import BOUND, LEARNERS, STYLES, learner_in_words, learner_styles, split_seed


def test_every_published_learner_is_named_in_words_and_has_a_style():
    for name in PUBLISHED:
        assert "_" not in learner_in_words(name)
        assert learner_in_words(name) in STYLES
    assert len(set(LEARNERS.values())) == len(LEARNERS)
    assert set(LEARNERS.values()) <= set(STYLES)


def test_no_two_learners_that_learn_look_the_same():
    looks = [(style.colour, style.marker) for style in STYLES.values() if style.marker]
    assert len(set(looks)) == len(looks)
    assert all(style.dash != "-" for style in STYLES.values() if not style.marker)


def test_a_learner_of_ones_own_keeps_its_name_and_gets_a_look_that_is_free():
    assert learner_in_words("my learner") == "my learner"
    own = learner_styles().of("my learner")
    assert (own.colour, own.marker) not in {(style.colour, style.marker) for style in STYLES.values()}
    assert learner_styles().of("ridge") == BOUND


def test_a_loop_of_several_seeds_is_split_into_learner_and_number():
    assert [split_seed(loop) for loop in ("maml_0", "my_own_12", "context", "a_b")] == [
        ("maml", 0),
        ("my_own", 12),
        ("context", None),
        ("a_b", None),
    ]
