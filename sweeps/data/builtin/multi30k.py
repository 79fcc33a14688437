"""Multi30k, German to English: 31 014 captions of pictures with their translation, and the 1000 of
test_2016_flickr, the official test split.

Origin: Elliott et al. 2016, "Multi30K: Multilingual English-German Image Descriptions",
https://github.com/multi30k/dataset (task 1, raw). For non-commercial research and education.

A caption is cut into word pieces by one byte-pair encoding for both languages, made of the training captions
alone. Inputs are (2, position): the German pieces, and the English ones behind `BEGIN`, which a network is
given while it is trained and scored; labels are the English pieces and `END`. What is longer than LENGTH is
cut off; training pairs that are longer are left out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sweeps.data.dataset import IGNORED, Array, RawData
from sweeps.data.readers.parquet import folder_of, read_table
from sweeps.data.registry import Yields, dataset
from sweeps.errors import WrongInput

PIECES = 2000
"""Size of the vocabulary. Small ones suit small data (Ding et al. 2019, "A Call for Prudent Choice of Subword
Merge Operations").
"""
LENGTH = 40
"""Pieces of a caption at most: 99 % of the training captions have at most 42 in German and 37 in English."""
SPECIAL = ("<padding>", "<unknown>", "<begin>", "<end>")
PADDING, UNKNOWN, BEGIN, END = range(4)
FILES = tuple(f"{split}-00000-of-00001.parquet" for split in ("train", "validation", "test_2016_flickr"))
FOLDERS = ("data", ".")
LANGUAGES = ("de", "en")
HOW = (
    "Get train, val and test_2016_flickr of https://github.com/multi30k/dataset (data/task1/raw), write each"
    f" as a parquet file with the text columns de and en named {', '.join(FILES)} into DIR/multi30k, and pass"
    " --data-dir DIR or set LSCAL_DATA=DIR."
)


@dataset(Yields("sequences"))
def multi30k(data_dir: Path | None) -> RawData:
    """Pieces of three parquet files in `data_dir/multi30k` or `data_dir` itself, there in `data` or the
    folder itself. Validation is the official split.
    """
    folder = folder_of(data_dir, "multi30k", FILES, FOLDERS, HOW)
    tables = [read_table(folder / name, LANGUAGES, HOW) for name in FILES]
    captions = [[table[language].to_pylist() for language in LANGUAGES] for table in tables]
    tokeniser = tokeniser_of([*captions[0][0], *captions[0][1]])
    parts = [[pieces_of(tokeniser, texts) for texts in pair] for pair in captions]
    fits = [max(len(german), len(english) + 1) <= LENGTH for german, english in zip(*parts[0], strict=True)]
    parts[0] = [
        [pieces for pieces, short in zip(language, fits, strict=True) if short] for language in parts[0]
    ]
    german, english = ([pieces for part in parts for pieces in part[language]] for language in (0, 1))
    references = (
        [text for text, short in zip(captions[0][1], fits, strict=True) if short]
        + captions[1][1]
        + captions[2][1]
    )
    return RawData(
        inputs=np.stack([rows(german), rows([[BEGIN, *pieces] for pieces in english])], axis=1),
        labels=rows([[*pieces, END] for pieces in english], IGNORED).astype(np.int64),
        classes=tuple(tokeniser.id_to_token(index) for index in range(tokeniser.get_vocab_size())),
        test=len(captions[2][0]),
        validation=len(captions[1][0]),
        where=str(folder),
        vocabulary=tuple(tokeniser.id_to_token(index) for index in range(tokeniser.get_vocab_size())),
        shown=tuple(references),
    )


def tokeniser_of(texts: Sequence[str]) -> Any:
    """A byte-pair encoding (Sennrich et al. 2016) made of some texts, a `tokenizers.Tokenizer`. Errors:
    WrongInput where that is not installed.
    """
    try:
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    except ImportError as error:
        raise WrongInput(
            "multi30k needs the package tokenizers. Install it: pip install 'lscal[translation]'"
        ) from error
    tokeniser = Tokenizer(models.BPE(unk_token=SPECIAL[UNKNOWN]))
    tokeniser.normalizer = normalizers.NFC()
    tokeniser.pre_tokenizer = pre_tokenizers.Metaspace()
    tokeniser.decoder = decoders.Metaspace()
    tokeniser.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=PIECES, special_tokens=list(SPECIAL), show_progress=False)
    )
    return tokeniser


def pieces_of(tokeniser: Any, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text's pieces."""
    return [encoded.ids for encoded in tokeniser.encode_batch(list(texts))]


def rows(pieces: Sequence[Sequence[int]], filling: int = PADDING) -> Array:
    """Ids (text, LENGTH) int16, filled up or cut off at the end."""
    table = np.full((len(pieces), LENGTH), filling, np.int16)
    for row, own in enumerate(pieces):
        table[row, : min(len(own), LENGTH)] = own[:LENGTH]
    return table
