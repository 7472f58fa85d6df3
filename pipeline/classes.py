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
        """The ``short_name`` of each, to be shown."""
        return tuple(map(printable, map(short_name, self.ids, self.names)))


def short_name(class_id: str, words: str) -> str:
    """Return WordNet's first word, as ``goldfish``, or the whole name of a person's own folder."""
    return words if words == class_id else words.partition(",")[0]
