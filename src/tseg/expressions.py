"""Expressions as text: one form for what looks the same, and nothing that cannot be seen."""

import unicodedata

_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Fillers and the empty Braille cell: blank, although Unicode counts them among letters and symbols."""
_JOINERS = frozenset("\u200c\u200d")
"""Invisible characters that change how their neighbours look, as in Persian words and in emoji of several parts."""


def clean_expression(text: str) -> str:
    """The expression that a reader sees in `text`; empty if nothing is left that has a letter, digit or symbol.

    Characters are composed (NFC), each run of white space becomes one space, and invisible characters (Unicode's
    control and format characters, such as byte order marks and zero-width spaces) are removed. Joiners stay inside a
    word.
    """
    # ASSUME: what looks the same is the same expression.
    seen = "".join(
        " " if char.isspace() or char in _BLANK else char
        for char in text
        if char.isspace() or char in _JOINERS or unicodedata.category(char) not in ("Cc", "Cf")
    )
    words = [word.strip("".join(_JOINERS)) for word in unicodedata.normalize("NFC", seen).split()]
    is_seen = any(unicodedata.category(char)[0] in "LNS" for word in words for char in word)
    return " ".join(filter(None, words)) if is_seen else ""
