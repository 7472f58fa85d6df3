"""The classes that a data set shows and a network tells apart."""

from dataclasses import dataclass

from pipeline.printing import printable


@dataclass(frozen=True)
class Classes:
    """Ids and words, in label order."""

    ids: tuple[str, ...]
    """WordNet's, as ``n01443537``."""
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
        """The first word for each, as ``goldfish``, to be shown."""
        return tuple(printable(words.partition(",")[0]) for words in self.names)
