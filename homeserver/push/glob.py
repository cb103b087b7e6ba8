"""Glob-style matching in linear time (appendices, "Glob-style Matching"). Pure.

``*`` stands for any text, ``?`` for one character. People write these patterns and other people write the texts, so
nothing here may take long for any pair of them: no regular expressions, no backtracking. Between stars the leftmost
match is always as good as any other, so that each piece is searched once; a piece with ``?`` is found by carrying one
bit for each of its characters along the text.
"""

from collections.abc import Iterator

_WORD = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")


class Glob:
    """A pattern made ready. Texts are given in lower case (``str.lower``): matching ignores case."""

    __slots__ = ("_pieces", "_whole")

    def __init__(self, pattern: str) -> None:
        pieces = pattern.lower().split("*")
        # Stars side by side are one star.
        kept = [pieces[0], *(piece for piece in pieces[1:-1] if piece), *pieces[-1:]] if len(pieces) > 1 else pieces
        self._pieces = tuple(_Piece(piece) for piece in kept)
        self._whole = pattern.lower() if "*" not in pattern and "?" not in pattern else None

    @classmethod
    def literal(cls, text: str) -> "Glob":
        """A pattern that means ``text`` itself, stars and question marks included."""
        glob = cls("")
        glob._pieces = (_Piece(text.lower(), wildcards=False),)
        glob._whole = text.lower()
        return glob

    def matches(self, text: str) -> bool:
        """Whether the whole of ``text`` matches."""
        if self._whole is not None:
            return text == self._whole
        first, *rest = self._pieces
        if not first.stands_at(text, 0):
            return False
        place = first.length
        if not rest:
            return place == len(text)
        *middle, last = rest
        for piece in middle:
            place = piece.find(text, place)
            if place < 0:
                return False
            place += piece.length
        return len(text) - last.length >= place and last.stands_at(text, len(text) - last.length)

    def matches_words(self, text: str) -> bool:
        """Whether some part of ``text`` that begins and ends at word boundaries matches.

        A word boundary is either end of the text, or next to a character that is none of ``A-Za-z0-9_``.
        """
        first, *rest = self._pieces
        if not rest:
            size = first.length
            return any(
                _boundary(text, place) and _boundary(text, place + size) for place in first.places(text, 0)
            )
        if first.length == 0:
            place = 0
        else:
            place = next((at for at in first.places(text, 0) if _boundary(text, at)), -1)
            if place < 0:
                return False
            place += first.length
        *middle, last = rest
        for piece in middle:
            place = piece.find(text, place)
            if place < 0:
                return False
            place += piece.length
        return last.length == 0 or any(_boundary(text, at + last.length) for at in last.places(text, place))


def _boundary(text: str, place: int) -> bool:
    """Whether ``place`` is not between two word characters."""
    return place == 0 or place == len(text) or text[place - 1] not in _WORD or text[place] not in _WORD


class _Piece:
    """What stands between two stars: plain text, or text with question marks."""

    __slots__ = ("_masks", "_wild", "length", "text")

    def __init__(self, text: str, wildcards: bool = True) -> None:
        self.text = text
        self.length = len(text)
        self._wild = 0
        self._masks: dict[str, int] = {}
        if wildcards and "?" in text:
            self._wild = sum(1 << i for i, char in enumerate(text) if char == "?")
            for i, char in enumerate(text):
                self._masks[char] = self._masks.get(char, self._wild) | 1 << i
            # A question mark in the text is a character like others.
            self._masks["?"] = self._wild

    def stands_at(self, text: str, place: int) -> bool:
        """Whether the piece matches exactly there."""
        if not self._wild:
            return text.startswith(self.text, place)
        part = text[place : place + self.length]
        return len(part) == self.length and all(
            mine in ("?", char) for mine, char in zip(self.text, part, strict=True)
        )

    def find(self, text: str, start: int) -> int:
        """The first place from ``start`` on where the piece matches, -1 if there is none."""
        return text.find(self.text, start) if not self._wild else next(self.places(text, start), -1)

    def places(self, text: str, start: int) -> Iterator[int]:
        """All places from ``start`` on where the piece matches, in order."""
        if self._wild:
            # Bit i: the last i + 1 characters match the first i + 1 of the piece.
            state, masks, wild, end = 0, self._masks, self._wild, 1 << self.length - 1
            for place in range(start, len(text)):
                state = (state << 1 | 1) & masks.get(text[place], wild)
                if state & end:
                    yield place - self.length + 1
            return
        place = text.find(self.text, start)
        while place >= 0:
            yield place
            place = text.find(self.text, place + 1)
