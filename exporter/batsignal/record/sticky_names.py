"""Which names keep a series of their own: the first ones, for as long as they live; the rest share one.

Owns the bound on labels. A name never moves to the shared series while it is used, so that no counter jumps. Pure: the
time is given.
"""

OTHER = "other"
# A name that nobody has used for this long gives its series back.
NAME_LIFE_SECONDS = 3600.0


class StickyNames:
    """Admits the first names it meets, up to a cap, and keeps each for as long as it lives."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._last_used: dict[str, float] = {}
        self._free_after = float("-inf")
        """Before this no name can have been unused for long enough."""

    def admit(self, name: str, t: float) -> str:
        """Return the name itself, or `other` when the places are taken.

        >>> names = StickyNames(1)
        >>> [names.admit(name, 0.0) for name in ("web", "api", "web")]
        ['web', 'other', 'web']
        >>> names.admit("api", NAME_LIFE_SECONDS + 1)
        'api'
        """
        if name in self._last_used or len(self._last_used) < self.most or self._free(t):
            self._last_used[name] = t
            return name
        return OTHER

    def _free(self, t: float) -> bool:
        if t <= self._free_after:
            return False
        gone = [name for name, used in self._last_used.items() if t - used > NAME_LIFE_SECONDS]
        for name in gone:
            del self._last_used[name]
        self._free_after = min(self._last_used.values(), default=t) + NAME_LIFE_SECONDS
        return bool(gone)

    def __contains__(self, name: str) -> bool:
        return name in self._last_used
