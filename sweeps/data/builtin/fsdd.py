"""Free Spoken Digit Dataset: 3000 recordings of ten English digits by six speakers, as log-mel spectrograms.

Origin: Jackson et al., DOI 10.5281/zenodo.1342401, https://github.com/Jakobovski/free-spoken-digit-dataset,
CC BY-SA 4.0.
"""

import io
import wave
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sweeps.data.dataset import RawData
from sweeps.data.readers.parquet import folder_of, labels_of, read_table
from sweeps.data.registry import Yields, dataset
from sweeps.data.spectrogram import Spectrogram
from sweeps.errors import WrongInput

CLASSES = tuple("0123456789")
FILES = ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet")
FOLDERS = ("data", ".")
HOW = (
    f"Get {' and '.join(FILES)} with the columns audio, label and speaker, made of the recordings of"
    " https://github.com/Jakobovski/free-spoken-digit-dataset (0 to 4 of each digit and speaker are the test"
    " split), put them in DIR/fsdd, and pass --data-dir DIR or set LSCAL_DATA=DIR."
)
SPECTROGRAM = Spectrogram(rate=8000, window=256, hop=192, bands=24, frames=40)
"""Frames of 32 ms; 40 of them are 0.97 s, and 99 % of the recordings are shorter."""


@dataset(Yields("images", side=SPECTROGRAM.bands))
def fsdd(data_dir: Path | None) -> RawData:
    """The official split: recordings 0 to 4 of each digit and speaker are the 300 test examples. All speakers
    are heard in training.
    """
    return read(data_dir, None)


@dataset(Yields("images", side=SPECTROGRAM.bands))
def fsdd_by_speaker(data_dir: Path | None) -> RawData:
    """The same, but the test split holds the 1000 recordings of the two speakers whose names come first, and
    *train* has none of them.
    """
    return read(data_dir, 2)


def read(data_dir: Path | None, unheard: int | None) -> RawData:
    """The two parquet files in `data_dir/fsdd` or `data_dir`, there in `data` or the folder itself. `unheard`
    speakers are the test split, or None for the official one.
    """
    folder = folder_of(data_dir, "fsdd", FILES, FOLDERS, HOW)
    tables = [read_table(folder / name, ("audio", "label", "speaker"), HOW) for name in FILES]
    rows = [
        (folder / name, row, entry["bytes"])
        for name, table in zip(FILES, tables, strict=True)
        for row, entry in enumerate(table["audio"].to_pylist())
    ]
    inputs = (
        SPECTROGRAM.log_mel(torch.stack([SPECTROGRAM.levelled(samples_of(*row)) for row in rows]))
        .unsqueeze(1)
        .numpy()
    )
    labels = np.concatenate(
        [
            labels_of(table, folder / name, len(CLASSES), HOW)
            for table, name in zip(tables, FILES, strict=True)
        ]
    )
    speakers = np.concatenate(
        [table["speaker"].to_numpy(zero_copy_only=False).astype(str) for table in tables]
    )
    tested = (
        np.arange(len(rows)) >= tables[0].num_rows
        if unheard is None
        else np.isin(speakers, np.unique(speakers)[:unheard])
    )
    order = np.concatenate([np.flatnonzero(~tested), np.flatnonzero(tested)])
    return RawData(
        inputs=inputs[order],
        labels=labels[order],
        classes=CLASSES,
        test=int(tested.sum()),
        where=str(folder),
        shown=tuple(f"spoken by {speaker}" for speaker in speakers[order]),
    )


def samples_of(path: Path, row: int, packed: bytes) -> Float[Tensor, " sample"]:
    """The samples of a WAV file, from -1 to 1. Errors: WrongInput unless it is a mono recording of 16 bits at
    8000 Hz.
    """
    try:
        with wave.open(io.BytesIO(packed)) as file:
            form = file.getnchannels(), 8 * file.getsampwidth(), file.getframerate()
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise WrongInput(f"{path} is corrupt: row {row} is no WAV file: {error}. {HOW}") from error
    if form != (1, 16, SPECTROGRAM.rate) or not raw:
        raise WrongInput(
            f"row {row} of {path} has {form[0]} channels of {form[1]} bits at {form[2]} Hz and {len(raw)}"
            f" bytes of sound; wanted 1 of 16 bits at {SPECTROGRAM.rate} Hz, not empty. {HOW}"
        )
    return torch.from_numpy(np.frombuffer(raw, "<i2").astype(np.float32) / 2**15)
