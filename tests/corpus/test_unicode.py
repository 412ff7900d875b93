"""The same text collides however Unicode spells it; what reads differently stays different."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.corpus import overlap
from fewshot.corpus.document import Document
from fewshot.corpus.overlap import which_collide, words
from fewshot.corpus.unicode import canonical

FRENCH = "Les élèves préfèrent le café très sucré où l'été paraît déjà fini"
ENGLISH = "The first flights of the office staff offer a difficult affair"
CHINESE = "世界上没有两片完全相同的叶子"
JAPANESE = "ガラスの上にデータを置いてパンを食べた"
THAI = "สวัสดีครับผมชื่อสมชายทำงานที่กรุงเทพ"
KOREAN = "나는 오늘 아침에 학교에 가서 친구를 만나고 책을 읽었다"
HINDI = "मैं आज सुबह विद्यालय जाकर अपने मित्र से मिला और पढ़ा"


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def between(sign: str, text: str) -> str:
    """`sign` inside every word, behind its second character."""
    return " ".join(word[:2] + sign + word[2:] for word in text.split())


def full_width(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


NEIGHBOURS = {
    "French, accents apart": (FRENCH, decomposed(FRENCH)),
    "Korean, syllables apart": (KOREAN, decomposed(KOREAN)),
    "Hindi, dots together": (HINDI, HINDI.replace("ढ\u093c", "\u095d")),
    "Japanese, voice marks apart": (JAPANESE, decomposed(JAPANESE)),
    "Japanese, half width": (JAPANESE, JAPANESE.replace("ガ", "ｶﾞ").replace("パ", "ﾊﾟ").replace("デ", "ﾃﾞ")),
    "soft hyphens": (ENGLISH, between("\u00ad", ENGLISH)),
    "zero-width joiners": (ENGLISH, between("\u200d", ENGLISH)),
    "zero-width non-joiners": (FRENCH, between("\u200c", FRENCH)),
    "zero-width spaces": (ENGLISH, between("\u200b", ENGLISH)),
    "word joiners": (ENGLISH, between("\u2060", ENGLISH)),
    "byte order marks": (ENGLISH, between("\ufeff", ENGLISH)),
    "marks of direction": (ENGLISH, between("\u200e", ENGLISH)),
    "variation selectors": (CHINESE, "\U000e0100".join(CHINESE)),
    "a joiner between letter and accent": (FRENCH, decomposed(FRENCH).replace("\u0301", "\u200d\u0301")),
    "ligatures": (ENGLISH, ENGLISH.replace("ffi", "ﬃ").replace("ff", "ﬀ").replace("fl", "ﬂ").replace("fi", "ﬁ")),
    "full width": (ENGLISH, full_width(ENGLISH)),
    "Kelvin and Angstrom signs": (ENGLISH + " Kelvin Ångström", ENGLISH + " \u212aelvin \u212bngström"),
    "Thai am, taken apart": (THAI, THAI.replace("\u0e33", "\u0e4d\u0e32")),
    "Han of another block": (CHINESE + "金", CHINESE + "\uf90a"),
}


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_the_same_text_in_another_spelling_collides(name: str) -> None:
    plain, spelled = NEIGHBOURS[name]
    assert plain != spelled
    assert words(plain) == words(spelled)
    for needle, text in ((plain, spelled), (spelled, plain)):
        document = Document(id="d", text=f"Something before it. {text} And after.", source="test")
        assert set(which_collide({"x": needle}, [document], 8)) == {"x"}


@pytest.mark.parametrize(
    ("script", "sentence", "filling"),
    [
        ("Han", CHINESE, "春眠不觉晓处处闻啼鸟夜来风雨声花落知多少"),
        ("Kana", JAPANESE, "いろはにほへとちりぬるを"),
        ("Thai", THAI, "กขคงจฉชซฌญ"),
        ("Lao", "ສະບາຍດີຂ້ອຍຊື່ສົມຊາຍ", "ກຂຄງຈສຊຍດຕ"),
        ("Khmer", "ខ្ញុំចូលចិត្តអានសៀវភៅ", "កខគឃងចឆជឈញ"),
        ("Myanmar", "မင်္ဂလာပါကျွန်တော်မောင်မောင်ပါ", "ကခဂဃငစဆဇဈည"),
    ],
)
def test_a_sentence_without_spaces_is_found_in_a_longer_stretch(script: str, sentence: str, filling: str) -> None:
    document = Document(id="d", text=filling * 3 + sentence + filling * 2, source="test")
    other = Document(id="o", text=filling * 5, source="test")
    n = len(words(sentence))
    assert n > 8
    assert which_collide({script: sentence}, [other, document], n)[script].document == "d"
    assert which_collide({script: sentence}, [other], 8) == {}


def test_letters_of_scripts_without_spaces_are_words_with_their_marks() -> None:
    assert words("漢字kanji字") == ["漢", "字", "kanji", "字"]
    assert words("ดีครับ") == ["ดี", "ค", "รั", "บ"]
    assert words("กี1 \u0301") == ["กี", "1", "\u0301"]
    assert words("한국어는 fünf") == ["한국어는", "fünf"]  # Korean has spaces


@pytest.mark.parametrize(("one", "other"), [("10²", "102"), ("H₂O", "H2O"), ("1ª", "1a"), ("résumé", "resume")])
def test_what_reads_differently_stays_different(one: str, other: str) -> None:
    assert words(one) != words(other)


def test_a_sign_behind_a_word_is_no_part_of_it() -> None:
    assert words("Google™ Linux® №5") == ["google", "linux", "5"]


def test_ascii_is_compared_as_it_stands() -> None:
    text = "".join(map(chr, range(128)))
    assert canonical(text) is text


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(alphabet="ab é\u0301\u200d\u00ad世界กี\u0e33か\u3099、。ﬁ-\n", max_size=60),
    batch_chars=st.sampled_from([1, 3, 10]),
)
def test_where_a_document_is_cut_into_pieces_does_not_change_its_words(text: str, batch_chars: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "BATCH_CHARS", batch_chars)
        document = Document(id="d", text=text, source="test")
        found = [word for _, piece in overlap._pieces([document], 0) for word in words(piece)]
    assert found == words(text)
