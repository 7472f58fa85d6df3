"""The classes that a data set shows and a network tells apart."""

from dataclasses import dataclass

from pipeline.printing import printable


@dataclass(frozen=True)
class Classes:
    """Ids and words, in label order."""

    ids: tuple[str, ...]
    """WordNet's, as ``n01443537``, or the names of a person's class folders."""
    names: tuple[str, ...]
    """All words for each, as ``goldfish, Carassius auratus``."""

    def __post_init__(self) -> None:
        if not self.ids or len(self.ids) != len(self.names):
            raise ValueError("an id and words are needed for each class")
        "".join(self.ids + self.names).encode()  # a lone surrogate is a ValueError too

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def short_names(self) -> tuple[str, ...]:
        """To be shown: WordNet's first word for each, as ``goldfish``, or a folder's whole name."""
        pairs = zip(self.ids, self.names, strict=True)
        return tuple(printable(w if w == id_ else w.partition(",")[0]) for id_, w in pairs)
