"""Sound: WAV files as spectrograms (example, 1, band, frame) of one length."""

import io
import wave
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sweeps.data.readers.examples import Examples, listed
from sweeps.data.spectrogram import Spectrogram
from sweeps.errors import WrongInput

ENDINGS = (".wav",)
WINDOW_SECONDS = 0.032
"""Of a frame; the next one begins half of it later."""
BANDS = 32
LONGEST_SECONDS = 4.0
COMMON = 0.95
"""So many recordings are no longer than a spectrogram: the others are cut."""


def is_wave(content: bytes) -> bool:
    """Whether a file's first bytes are those of a WAV file."""
    return content[:4] == b"RIFF" and content[8:12] == b"WAVE"


def examples_of(files: Sequence[bytes | Path], names: Sequence[str], where: str) -> Examples:
    """Log-mel spectrograms of 32 bands: as long as 95 % of the recordings, at most 4 s; shorter ones are
    followed by silence.

    Errors: WrongInput, naming the files that are no WAV files, and where their rates differ.
    """
    sounds, broken = [], []
    rates: Counter[int] = Counter()
    for file, name in zip(files, names, strict=True):
        try:
            samples, rate = samples_of(file)
        except (wave.Error, EOFError, OSError, ValueError) as error:
            broken.append(f"{name}: {error}")
            continue
        sounds.append(samples)
        rates[rate] += 1
    if broken:
        raise WrongInput(
            f"{len(broken)} of {len(files)} recordings of {where} cannot be read as WAV: {listed(broken, 5)}."
            " Repair or remove them."
        )
    if len(rates) > 1:
        listing = listed([f"{rate} Hz ({count})" for rate, count in rates.most_common()])
        raise WrongInput(f"the recordings of {where} have different rates: {listing}. Resample them to one.")
    (rate,) = rates
    window = max(16, round(WINDOW_SECONDS * rate) // 2 * 2)
    seconds = min(LONGEST_SECONDS, float(np.quantile([len(samples) / rate for samples in sounds], COMMON)))
    frames = max(4, int(seconds * rate - window) // (window // 2) + 1)
    made = Spectrogram(rate, window, window // 2, BANDS, frames)
    inputs = torch.stack([made.log_mel(made.levelled(samples)) for samples in sounds]).unsqueeze(1).numpy()
    note = (
        f"recordings at {rate} Hz become log-mel spectrograms of {BANDS} bands and {frames} frames,"
        f" {seconds:.2f} s"
    )
    return Examples(inputs, (), (), where, notes=(note,))


def samples_of(file: bytes | Path) -> tuple[Float[Tensor, " sample"], int]:
    """The mean of all channels, from -1 to 1, and the rate in Hz. Errors: ValueError for widths other than 8,
    16, 24 and 32 bits.
    """
    with wave.open(io.BytesIO(file) if isinstance(file, bytes) else str(file)) as stream:
        channels, width, rate = stream.getnchannels(), stream.getsampwidth(), stream.getframerate()
        raw = np.frombuffer(stream.readframes(stream.getnframes()), np.uint8)
    if not len(raw):
        raise ValueError("it is empty")
    if width == 1:
        whole = raw.astype(np.int32) - 128
    else:
        padded = np.zeros((len(raw) // width, 4), np.uint8)
        padded[:, 4 - width :] = raw.reshape(-1, width)
        whole = padded.view("<i4")[:, 0] >> 8 * (4 - width)
    samples = whole.reshape(-1, channels).mean(1) / 2 ** (8 * width - 1)
    return torch.from_numpy(samples.astype(np.float32)), rate
