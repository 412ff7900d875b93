"""Moses' tokens, as its tokenizer.perl with normalised punctuation gives them: sacremoses gives the same for each."""

from __future__ import annotations

import pytest

from fewshot.evaluate.metrics.moses import moses_tokens


@pytest.mark.parametrize(
    ("language", "text", "tokens"),
    [
        ("en", "Mr. Smith can't pay 1,500.50 euros, sadly.", "Mr. Smith can 't pay 1,500.50 euros , sadly ."),
        ("en", "In the 1990's (or so) the U.S. grew...", "In the 1990 's ( or so ) the U.S. grew ..."),
        ("en", '“Yes”, he said. "No".', '" Yes , " he said . " No . "'),
        ("fr", "L’homme d'État n'a rien dit.", "L' homme d' État n' a rien dit ."),
        ("fr", "Il a dit « oui ».", 'Il a dit " oui " .'),
        ("de", "Am 3. Mai kam z.B. Dr. Weiß - um 8 Uhr.", "Am 3. Mai kam z.B. Dr. Weiß - um 8 Uhr ."),
        ("ro", "Aţi văzut-o pe dna. Ionescu?", "Aţi văzut-o pe dna . Ionescu ?"),
    ],
)
def test_punctuation_stands_apart_by_the_rules_of_the_language(language: str, text: str, tokens: str) -> None:
    assert " ".join(moses_tokens(text, language)) == tokens
