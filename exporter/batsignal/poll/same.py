"""One object for texts that are equal: the driver makes a new one for each value of each row.

Owns that table, bounded. `sys.intern` would do, but what it is given stays for good in some versions of Python, and
names from outside never end.
"""

TEXTS_MOST = 4096


class SameTexts:
    """The texts of late; begun anew when there are too many."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def of(self, text: str) -> str:
        """Return the object that was first seen with these characters.

        >>> same = SameTexts()
        >>> same.of("id" + str(1)) is same.of("id" + str(1))
        True
        """
        if len(self._texts) >= TEXTS_MOST:
            self._texts = {}
        return self._texts.setdefault(text, text)
