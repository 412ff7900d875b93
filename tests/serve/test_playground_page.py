"""The playground as people use it: both themes, narrow and wide, by keyboard alone, and its few-shot tab."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from browser import CHOICES, ENDED, FAULTS, answer_fewshot, expect, faults, submit, write
from serving import Server


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_everything_can_be_seen_and_has_a_name(page: Any, theme: str, width: int) -> None:
    answer_fewshot(page)
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme="dark" if theme == "light" else "light")  # the toggle wins
    for _ in range(1 if theme == "light" else 2):
        page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    page.evaluate("document.querySelectorAll('details').forEach((details) => (details.open = true))")
    page.click("#show-key")
    page.evaluate("import('/static/dom.js').then(({showError}) => showError('It failed.'))")
    assert faults(page) == []
    write(page, "the cat", max_tokens=9)
    submit(page)
    for mode in ("off", "most", "least", "full"):
        page.select_option("#set-show", mode)
        assert page.evaluate(FAULTS) == [], mode
    assert faults(page) == []
    page.locator("#text").press("Alt+ArrowDown")
    expect(page, "#alternatives button >> nth=0").to_be_focused()
    assert faults(page) == []
    page.keyboard.press("Escape")
    page.click("#view-code")
    expect(page, "#code").to_be_visible()
    assert faults(page) == []
    page.keyboard.press("Escape")
    page.click("#tab-few")
    page.click("#few-draw")
    expect(page, "#few-question option").to_have_count(20)
    page.click("#few-run")
    page.click("#few-accuracy-run")
    expect(page, "#few-accuracy").to_contain_text("20 of 20")
    page.fill("#few-k", "16")  # so many that what is read has to be scrolled
    page.click("#few-attention-run")
    expect(page, ".layer").to_have_count(2)
    page.evaluate("document.querySelectorAll('details').forEach((details) => (details.open = true))")
    assert faults(page) == []
    page.set_viewport_size({"width": 1440, "height": 900})


def test_the_rules_find_what_is_wrong(page: Any) -> None:
    write(page, "pale")
    page.evaluate(
        """() => {
      const button = document.createElement("button");
      const text = document.createElement("p");
      text.textContent = "pale";
      text.style.color = "#bbb";
      text.style.width = "3000px";
      document.body.append(button, text);
      document.querySelector("#layer span").style.background = "#777";
      button.id = "text";
    }"""
    )
    told = "\n".join(faults(page))
    assert 'button-name: <button id="text">' in told
    assert "color-contrast: <p" in told
    assert "contrast 3." in told
    assert "twice: #text" in told
    assert "wider than the window" in told


def test_all_of_it_goes_by_keyboard_alone(page: Any) -> None:
    answer_fewshot(page)
    expect(page, "#text").to_be_focused()
    page.keyboard.type("the cat")
    page.keyboard.press("Control+Enter")
    expect(page, "#status").to_contain_text(ENDED)
    n = page.locator("#layer .written").count()
    page.keyboard.press("Alt+ArrowDown")
    expect(page, "#alternatives button >> nth=0").to_be_focused()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    expect(page, "#alternatives button >> nth=1").to_be_focused()
    page.keyboard.press("Enter")
    expect(page, ".branch.alternative").to_have_count(1)
    expect(page, "#text").to_be_focused()
    expect(page, "#submit").to_be_enabled()
    page.keyboard.press("Control+z")
    expect(page, "#layer .written").to_have_count(n)
    page.locator("#tab-play").focus()
    page.keyboard.press("ArrowRight")
    expect(page, "#few").to_be_visible()
    page.locator("#few-run").press("Enter")
    expect(page, "#few-verdict").to_contain_text("choice")
    page.locator("#few-k").focus()
    page.keyboard.press("ArrowRight")
    expect(page, "#few-k-value").to_have_text("K = 1")


def few_shot(page: Any, *, questions: int = 20) -> list[tuple[str, dict[str, Any]]]:
    """Draw questions that are answered by rule, and ask the first; return what was asked, as it grows."""
    asked = answer_fewshot(page)
    page.click("#tab-few")
    expect(page, "#few-task option").to_have_count(1)
    page.fill("#few-n", str(questions))
    page.click("#few-draw")
    expect(page, "#few-question option").to_have_count(questions)
    page.click("#few-run")
    expect(page, "#few-verdict").to_contain_text("choice")
    expect(page, "#few-run").to_be_enabled()
    return asked


def shares(page: Any, box: str = "#few-bars") -> list[float]:
    """The bars that are shown, as shares."""
    return page.evaluate(f"[...document.querySelectorAll('{box} td.bar')].map(b => +b.style.getPropertyValue('--p'))")


def test_the_slider_moves_the_bars_by_what_one_request_gave(page: Any) -> None:
    asked = few_shot(page)
    assert [name for name, _ in asked] == ["tasks", "draw", "curve"]
    assert asked[2][1]["shots"] == list(range(17))
    assert len(asked[2][1]["questions"]) == 1
    seen = []
    for k in range(16):
        page.fill("#few-k", str(k))
        expect(page, "#few-k-value").to_have_text(f"K = {k}")
        seen.append(shares(page))
        assert sum(seen[-1]) == pytest.approx(1, abs=1e-3)
    right = [bars[1] for bars in seen]  # of question 1 with seed 1
    assert right == sorted(right)
    assert right[15] > right[0] + 0.3
    expect(page, "#few-verdict").to_contain_text("which is right")
    page.fill("#few-k", "16")
    expect(page, "#few-bars").to_contain_text("does not fit")
    assert len(asked) == 3
    cards = page.locator("#few-cards .card")
    assert [cards.nth(i).locator("h4").inner_text() for i in range(3)] == ["K = 0", "K = 1", "K = 8"]
    assert shares(page, "#few-cards .card:nth-child(3)") == seen[8]


def test_accuracy_is_drawn_against_shots_with_chance_as_a_line(page: Any) -> None:
    few_shot(page)
    page.click("#few-accuracy-run")
    expect(page, "#few-accuracy figcaption").to_have_text("Accuracy over 20 of 20 questions")
    expect(page, "#few-accuracy circle.now").to_have_count(16)
    expect(page, "#few-accuracy svg:not(.key) .level").to_have_count(1)
    circles = "[...document.querySelectorAll('#few-accuracy circle.now')]"
    places = page.evaluate(f"{circles}.map(c => [+c.getAttribute('cx'), +c.getAttribute('cy')])")
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    page.click("#few-accuracy summary")
    rows = page.locator("#few-accuracy tbody tr")
    assert rows.nth(0).inner_text().split() == ["0", "0.0%"]
    assert rows.nth(15).inner_text().split() == ["15", "100.0%"]
    assert places[15][1] < places[0][1]


def test_what_is_done_to_the_demonstrations_is_asked_again_and_shown_beside_what_was(page: Any) -> None:
    asked = few_shot(page)
    drawn = asked[-1][1]["questions"][0]["demonstrations"]
    before = shares(page)
    page.fill("#few-k", "9")
    before = shares(page)
    for button, expected in (("#few-permute", sorted(drawn)), ("#few-repeat", None), ("#few-shuffle", None)):
        page.click("#few-restore")
        page.click("#few-run")
        expect(page, "#few-run").to_be_enabled()
        n = len(asked)
        page.click(button)
        expect(page, "#few-curve polyline.before").to_have_count(1)
        expect(page, "#few-run").to_be_enabled()
        assert len(asked) == n + 1
        now = asked[-1][1]["questions"][0]["demonstrations"]
        if button == "#few-permute":
            assert sorted(now) == expected
            assert now != drawn
        elif button == "#few-repeat":
            assert now == [drawn[0]] * len(drawn)
            assert shares(page) != before
        else:
            assert [text.rsplit(" ", 1)[0] for text in now] == [text.rsplit(" ", 1)[0] for text in drawn]
            assert sorted(text.rsplit(" ", 1)[1] for text in now) == sorted(text.rsplit(" ", 1)[1] for text in drawn)
            assert now != drawn
        assert len(page.query_selector_all("#few-bars td.bar i")) == len(CHOICES)
    page.click("#few-restore")
    expect(page, "#few-demonstrations textarea >> nth=0").to_have_value(drawn[0])


def test_attention_is_shaded_and_what_may_not_be_read_is_struck_through(page: Any) -> None:
    asked = few_shot(page)
    page.fill("#few-k", "3")
    page.click("#few-attention-run")
    expect(page, ".layer").to_have_count(2)
    prompt = asked[-1][1]["prompt"]
    assert prompt.startswith("Words and their meanings.\nword 0 0 means mi\nword 0 1 means ka\n")
    assert prompt.endswith("\nword 0 means")
    expect(page, ".layer >> nth=0").to_contain_text("dense")
    expect(page, ".layer >> nth=1").to_contain_text("banded(5)")
    n = page.locator(".layer >> nth=1 >> .shaded span").count()
    expect(page, ".layer >> nth=0 >> .unread").to_have_count(0)
    expect(page, ".layer >> nth=1 >> .unread").to_have_count(n - 5)
    names = page.locator(".layer >> nth=1 >> .sums th").all_inner_texts()
    assert names == ["Before", "Description", "Demonstration 1", "Demonstration 2", "Demonstration 3", "Question"]
    sums = [sum(shares(page, f".layer:nth-of-type({i})")) for i in (1, 2)]
    assert sums == pytest.approx([1, 1], abs=1e-3)


def test_the_request_for_a_curve_is_copied_as_a_command(page: Any) -> None:
    asked = few_shot(page)
    page.click("#few-copy")
    expect(page, "#few-copy").to_have_text("Copied")
    words = shlex.split(page.evaluate("navigator.clipboard.readText()"))
    assert words[0] == "curl"
    assert json.loads(words[-1]) == asked[-1][1]


def test_the_tab_works_with_the_servers_own_routes(page: Any, server: Server) -> None:
    page.click("#tab-few")
    expect(page, "#few-task option").to_have_count(2)
    page.select_option("#few-task", "hidden_letter")
    page.fill("#few-n", "3")
    page.click("#few-draw")
    expect(page, "#few-question option").to_have_count(3)
    page.click("#few-run")
    expect(page, "#few-bars h4").to_have_text("How the answer is likeliest to begin")  # the task has no labels
    expect(page, "#few-curve circle.now").to_have_count(17)
    page.click("#few-accuracy-run")
    expect(page, "#few-accuracy figcaption").to_have_text("Accuracy over 3 of 3 questions")
    page.fill("#few-k", "4")
    page.click("#few-attention-run")
    expect(page, ".layer").to_have_count(2)
    expect(page, ".layer >> nth=1").to_contain_text("banded(16)")
    page.click("#few-add-choice")
    page.keyboard.type(" q")
    page.locator("#few-choices input[type=radio]").nth(1).check()
    page.click("#few-run")
    expect(page, "#few-verdict").to_contain_text("The model's choice")
    assert sum(shares(page)[:2]) == pytest.approx(1, abs=1e-3)
