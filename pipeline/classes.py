"""The classes of a data set and of the network trained on it."""

from dataclasses import dataclass

from pipeline.printing import printable


@dataclass(frozen=True)
class Classes:
    """Ids and words, in label order."""

    ids: tuple[str, ...]
    """WordNet ids such as ``n01443537``, or the names of the user's class folders."""
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
    """Return WordNet's first word, such as ``goldfish``, or the user's folder name in full."""
    return words if words == class_id else words.partition(",")[0]
