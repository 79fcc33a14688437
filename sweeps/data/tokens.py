"""Tokens: texts as words, and words as numbers. The vocabulary is that of the training texts; 0 is padding, 1
a word that it has not.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

PADDING, UNKNOWN = "<padding>", "<unknown>"
WORD = re.compile(r"\w+|[^\w\s]")
MOST_WORDS = 20_000
LEAST_OFTEN = 2
"""Words that are rarer in *train* are unknown ones, so that their vector is trained too."""
LONGEST = 256
COVERED = 0.99
"""The share of the texts of *train* that are kept whole: the few longest would make all others longer with
padding.
"""


def words_of(text: str) -> list[str]:
    """The words and marks of a text, in lower case."""
    return WORD.findall(text.lower())


def vocabulary_of(texts: Iterable[str], most: int = MOST_WORDS) -> tuple[str, ...]:
    """Padding, the unknown word, then the words by falling frequency, those of equal frequency by the
    alphabet.
    """
    counts = Counter(word for text in texts for word in words_of(text))
    often = sorted(
        (word for word, count in counts.items() if count >= LEAST_OFTEN),
        key=lambda word: (-counts[word], word),
    )
    return (PADDING, UNKNOWN, *often[: most - 2])


def longest(texts: Iterable[str]) -> int:
    """How many words are kept of each text: as many as the share COVERED of the texts has, at least 1 and at
    most LONGEST.
    """
    lengths = [len(words_of(text)) for text in texts]
    return min(LONGEST, max(1, int(np.quantile(lengths, COVERED, method="higher"))))


def encode(texts: Sequence[str], vocabulary: Sequence[str], length: int) -> npt.NDArray[np.int32]:
    """Token ids (text, position): the first `length` words of each, then padding. A text without a word is
    one unknown word.
    """
    ids = {word: index for index, word in enumerate(vocabulary)}
    encoded = np.zeros((len(texts), length), np.int32)
    for row, text in enumerate(texts):
        own = [ids.get(word, 1) for word in words_of(text)[:length]] or [1]
        encoded[row, : len(own)] = own
    return encoded
