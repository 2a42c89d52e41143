"""Expressions as text that can be seen."""

import unicodedata

import pytest

from tseg.expressions import clean_expression

UNSEEN = {
    "nothing": "",
    "white space": " \t\r\n",
    "no-break space": "\u00a0",
    "ideographic space": "\u3000",
    "zero-width space": "\u200b",
    "zero-width joiners": "\u200d\u200c",
    "byte order mark": "\ufeff",
    "soft hyphen": "\u00ad",
    "marks of direction": "\u200e\u202b\u2066",
    "control characters": "\x00\x07\x1b\x7f",
    "line separator": "\u2028",
    "Hangul filler": "\u3164",
    "empty Braille cell": "\u2800",
    "accent without a letter": "\u0301",
    "variation selector": "\ufe0f",
    "punctuation": "?! -- ...",
    "all at once": "\ufeff \u200b\u00a0\u3164.\u0301",
}


@pytest.mark.parametrize("kind", UNSEEN)
def test_text_without_a_visible_letter_digit_or_symbol_is_empty(kind: str) -> None:
    assert clean_expression(UNSEEN[kind]) == ""


@pytest.mark.parametrize(
    "text",
    [
        *("a red cat", "猫", "grün", "لباس قرمز", "🦓", "7", "no. 7!", "♥", "+", "C#", "(left)"),
        *("👩\u200d🚀", "می\u200cخواهم", "क्\u200dष"),  # joined
    ],
)
def test_text_that_can_be_seen_is_kept(text: str) -> None:
    assert clean_expression(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Big \t dog\n", "Big dog"),
        ("red\u00a0\u3000cat", "red cat"),
        ("\ufeffred cat", "red cat"),
        ("red\u200b cat\u200b", "red cat"),
        ("re\u00add cat", "red cat"),
        ("red\x07 cat", "red cat"),
        ("red \u200d cat \u200c", "red cat"),
        ("\u2066red\u2069 cat", "red cat"),
        ("red\u3164cat", "red cat"),
    ],
)
def test_what_cannot_be_seen_makes_no_difference(text: str, expected: str) -> None:
    assert clean_expression(text) == expected


@pytest.mark.parametrize("text", ["café", "grüne Äpfel", "한글", "Ω"])
def test_composed_and_decomposed_letters_are_the_same_expression(text: str) -> None:
    assert clean_expression(unicodedata.normalize("NFD", text)) == clean_expression(text)


def test_cleaning_twice_changes_nothing() -> None:
    for text in ("\u200d a \u200b", "a\u200d\u200c b", "e\u200b\u0301", *UNSEEN.values()):
        assert clean_expression(clean_expression(text)) == clean_expression(text)
