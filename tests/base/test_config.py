from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fewshot.base.config import from_overrides, from_plain, lay_over, read_yaml, to_plain, write_yaml
from fewshot.base.errors import BadFile, BadValue, UnknownName, check


@dataclass(frozen=True, kw_only=True)
class Wheel:
    spokes: int
    radius: float = 0.5
    name: str = "front"
    spare: bool = False
    load: int | None = None

    def __post_init__(self) -> None:
        check(self.spokes >= 3, f"spokes is {self.spokes}, must be at least 3")


@dataclass(frozen=True, kw_only=True)
class Cart:
    wheels: tuple[Wheel, ...] = field(default_factory=tuple)
    axle: Wheel | None = None
    gears: tuple[float, ...] = (1.0,)


def test_a_nested_configuration_goes_through_yaml_and_back(tmp_path: Path) -> None:
    cart = Cart(wheels=(Wheel(spokes=7), Wheel(spokes=9, load=3)), axle=Wheel(spokes=4, name="é"), gears=(0.001, 2.0))
    write_yaml(tmp_path / "cart.yaml", to_plain(cart))
    assert from_plain(Cart, read_yaml(tmp_path / "cart.yaml"), where="cart") == cart


@pytest.mark.parametrize(
    ("plain", "expected"),
    [
        ({"spokes": 3, "radius": 2}, Wheel(spokes=3, radius=2.0)),
        ({"spokes": 3, "radius": "1e-3"}, Wheel(spokes=3, radius=0.001)),  # so YAML 1.1 reads 1e-3
        ({"spokes": "3e2"}, Wheel(spokes=300)),
        ({"spokes": 5.0}, Wheel(spokes=5)),
        ({"spokes": 2**60 + 1}, Wheel(spokes=2**60 + 1)),  # beyond the whole numbers of a float
        ({"spokes": 3, "load": None}, Wheel(spokes=3)),
        ({"spokes": 3, "load": "4"}, Wheel(spokes=3, load=4)),
        ({"spokes": 3, "name": True}, Wheel(spokes=3, name="true")),
        ({"spokes": 3, "name": 5}, Wheel(spokes=3, name="5")),  # a name that looks like a number
        ({"spokes": 3, "spare": "yes"}, Wheel(spokes=3, spare=True)),
        ({"spokes": 3, "spare": "off"}, Wheel(spokes=3)),
    ],
)
def test_numbers_are_cast_to_the_type_that_is_asked_for(plain: dict[str, Any], expected: Wheel) -> None:
    made = from_plain(Wheel, plain, where="wheel")
    assert made == expected
    assert type(made.spokes) is int
    assert type(made.radius) is float


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"spokes": "many"}, "wheel.spokes is 'many', a number is needed"),
        ({"spokes": 3.5}, "wheel.spokes is 3.5, a whole number is needed"),
        ({"spokes": float("nan")}, "wheel.spokes is nan, a whole number is needed"),
        ({"spokes": float("inf")}, "wheel.spokes is inf, a whole number is needed"),
        ({"spokes": True}, "wheel.spokes is true, int is needed"),
        ({"spokes": [3]}, "wheel.spokes is [3], int is needed"),
        ({"spokes": None}, "wheel.spokes is null, int is needed"),
        ({"spokes": 3, "radius": False}, "wheel.radius is false, float is needed"),
        ({"spokes": 3, "name": [5]}, "wheel.name is [5], str is needed"),
        ({"spokes": 3, "spare": "maybe"}, "wheel.spare is 'maybe', bool is needed"),
        ({"spokes": 3, "spare": 1}, "wheel.spare is 1, bool is needed"),
        ({"spokes": 2}, "spokes is 2, must be at least 3"),
        ({"radius": 1.0}, "wheel lacks spokes"),
        ([3], "wheel must hold keys and values, found [3]"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_its_place(plain: Any, message: str) -> None:
    with pytest.raises(BadValue) as caught:
        from_plain(Wheel, plain, where="wheel")
    assert str(caught.value) == message


def test_the_place_reaches_into_lists_and_nested_values() -> None:
    with pytest.raises(BadValue, match=r"^cart\.wheels\[1\]\.spokes is 'x', a number is needed$"):
        from_plain(Cart, {"wheels": [{"spokes": 3}, {"spokes": "x"}]}, where="cart")
    with pytest.raises(BadValue, match=r"^cart\.gears is 1, a list is needed$"):
        from_plain(Cart, {"gears": 1}, where="cart")
    with pytest.raises(BadValue, match=r"^cart\.axle must hold keys and values, found 5$"):
        from_plain(Cart, {"axle": 5}, where="cart")


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"unknown key in cart\.axle 'radios'; nearest: 'radius'"):
        from_plain(Cart, {"axle": {"spokes": 3, "radios": 1}}, where="cart")


def test_laying_over_merges_nested_mappings_and_replaces_the_rest() -> None:
    below = {"a": {"x": 1, "y": 2}, "b": [1, 2], "c": 3}
    above = {"a": {"y": 5}, "b": [9], "d": {"z": 0}}
    assert lay_over(below, above) == {"a": {"x": 1, "y": 5}, "b": [9], "c": 3, "d": {"z": 0}}
    assert below == {"a": {"x": 1, "y": 2}, "b": [1, 2], "c": 3}


def test_overrides_become_a_nested_mapping() -> None:
    words = ["--model.n_layers", "4", "--model.tied=false", "--text", "[a, b]", "--lr", "-1e-3", "--note", "a: b: c"]
    assert from_overrides(words) == {
        "model": {"n_layers": 4, "tied": False},
        "text": ["a", "b"],
        "lr": "-1e-3",
        "note": "a: b: c",  # not YAML, so it is the text itself
    }
    assert from_overrides(["--x", "1", "--x", "2"]) == {"x": 2}
    assert from_overrides(["--day", "2024-13-45"]) == {"day": "2024-13-45"}  # looks like a date and is none


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model.n_layers", "4"], "'model.n_layers' is not understood; overrides look like --model.n_layers 4"),
        (["--a..b", "4"], "'--a..b' is not understood"),
        (["--", "4"], "'--' is not understood"),
        (["--a"], "--a needs a value"),
        (["--a", "--b", "1"], "--a needs a value"),
    ],
)
def test_an_override_that_is_not_understood_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(BadValue) as caught:
        from_overrides(words)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("typed", ["off", "no", "Yes", "on", "2024-01-01", "1:30", "0o17", "007", "~x"])
def test_words_are_what_was_typed(tmp_path: Path, typed: str) -> None:
    assert from_overrides(["--loop.kernel", typed]) == {"loop": {"kernel": typed}}
    (tmp_path / "a.yaml").write_text(f"kernel: {typed}\n")
    assert read_yaml(tmp_path / "a.yaml") == {"kernel": typed}


BOMBS = {
    "billion laughs": "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "multiplying keys": "a: &a {x: 1}\n"
    + "".join(
        f"{new}: &{new} {{p: *{old}, q: *{old}}}\n"
        for old, new in zip("abcdefghijklmnopqrst", "bcdefghijklmnopqrstu", strict=True)
    ),
    "deep lists": "a: " + "[" * 1000 + "]" * 1000,
    "deep keys": "".join(f"{' ' * i}k:\n" for i in range(300)),
    "very deep lists": "a: " + "[" * 20_000,
    "an alias that holds itself": "a: &a [*a]\n",
    "many values": "a: [" + "1," * 200_000 + "]",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_grows_without_end_is_refused_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.yaml").write_text(BOMBS[name])
    with pytest.raises(BadFile) as caught:
        read_yaml(tmp_path / "a.yaml")
    assert len(str(caught.value)) < 300


def test_too_many_values_are_not_read_to_their_end(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [" + "1," * 30_000 + "}")  # a mistake that is met only where all is read
    with pytest.raises(BadFile, match="more than 20,000 values"):
        read_yaml(tmp_path / "a.yaml")


def test_aliases_that_do_not_multiply_are_fine(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}


def test_an_override_that_grows_without_end_is_refused() -> None:
    with pytest.raises(BadValue, match="nested more than"):
        from_overrides(["--a", "[" * 1000 + "]" * 1000])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "is not YAML: line 3"),
        ("a: 1\n\tb: 2\n", "is not YAML: line 2"),
        ("a: !!python/object:os.system {}\n", "is not YAML: line 1"),
        ("number: " + "9" * 6000, "is not YAML"),
        ("- 1\n- 2\n", "must hold keys and values, found list"),
        ("", "must hold keys and values, found NoneType"),
    ],
)
def test_a_bad_yaml_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(BadFile) as caught:
        read_yaml(tmp_path / "a.yaml")
    assert str(caught.value) == f"{tmp_path / 'a.yaml'} {message}"


NOT_FINITE = (float("nan"), float("inf"), float("-inf"), ".inf", "nan", "-inf", "Infinity", "1e999", "-1e400", 10**400)


@pytest.mark.parametrize("value", NOT_FINITE, ids=lambda value: str(value)[:9])
def test_a_number_that_is_not_finite_is_refused_wherever_a_number_is_asked_for(value: Any) -> None:
    for kind, plain in ((Wheel, {"spokes": 3, "radius": value}), (Cart, {"gears": [1.0, value]})):
        with pytest.raises(BadValue, match=r"(wheel\.radius|gears\[1\]) is .*, a (finite )?number is needed"):
            from_plain(kind, plain, where="wheel")
