"""Speech: the recordings of FSDD as spectrograms."""

import io
import os
import wave
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet

from sweeps.data.builtin import DATASETS
from sweeps.data.builtin.fsdd import SPECTROGRAM, samples_of
from sweeps.data.load import load
from sweeps.data.spectrogram import FLOOR
from sweeps.errors import WrongInput

SHARED = Path(os.environ.get("LSCAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
FILES = ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet")
SILENCE = float(np.log(FLOOR))
RATE, WINDOW, HOP, MELS, FRAMES = (
    getattr(SPECTROGRAM, name) for name in ("rate", "window", "hop", "bands", "frames")
)


def tone(hertz, seconds, loudness=1.0):
    return loudness * torch.sin(2 * torch.pi * hertz * torch.arange(int(seconds * RATE)) / RATE)


def seen(samples):
    return SPECTROGRAM.log_mel(SPECTROGRAM.levelled(samples))


def packed(samples, rate=RATE, channels=1):
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes((samples.numpy() * 32767).astype("<i2").tobytes())
    return file.getvalue()


def test_each_frequency_has_its_band():
    hertz = torch.linspace(0, RATE / 2, WINDOW // 2 + 1)
    centres = [float(band @ hertz / band.sum()) for band in SPECTROGRAM.filters]
    assert centres == sorted(centres)
    loudest = [int(seen(tone(hertz, 0.5))[:, 5].argmax()) for hertz in (200, 500, 1000, 2000, 3000)]
    for band, hertz in zip(loudest, (200, 500, 1000, 2000, 3000), strict=True):
        assert abs(centres[band] - hertz) == min(abs(centre - hertz) for centre in centres)


def test_bands_share_the_frequencies_between_their_peaks():
    filters = SPECTROGRAM.filters
    assert filters.shape == (MELS, WINDOW // 2 + 1)
    inside = slice(int(filters[0].argmax()), int(filters[-1].argmax()))
    torch.testing.assert_close(filters[:, inside].sum(0), torch.ones(inside.stop - inside.start))


def test_loudness_is_taken_out():
    assert torch.allclose(seen(tone(440, 0.4, 0.01)), seen(tone(440, 0.4)), atol=1e-3)


def test_a_short_recording_ends_in_silence_and_a_long_one_is_cut():
    short, long = (seen(tone(440, seconds)) for seconds in (0.3, 3.0))
    assert short.shape == long.shape == (MELS, FRAMES)
    silent = -(-int(0.3 * RATE) // HOP)
    torch.testing.assert_close(short[:, silent:], torch.full((MELS, FRAMES - silent), SILENCE))
    assert long[:, -1].max() > 0
    torch.testing.assert_close(seen(torch.zeros(4000)), torch.full((MELS, FRAMES), SILENCE))


def test_a_wav_file_is_read_as_it_was_written():
    samples = tone(300, 0.1, 0.5)
    torch.testing.assert_close(samples_of(Path("x"), 0, packed(samples)), samples, rtol=0, atol=1e-4)


def write(folder, rows, test_rows):
    """Rows of (sound, label, speaker)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, own in zip(FILES, (rows, test_rows), strict=True):
        sounds, labels, speakers = zip(*own, strict=True)
        audio = [{"bytes": sound, "path": None} for sound in sounds]
        columns = {"audio": audio, "label": list(labels), "speaker": list(speakers)}
        parquet.write_table(pyarrow.table(columns), folder / name)


def test_the_test_split_is_the_official_one_or_has_speakers_of_its_own(tmp_path):
    hertz = {"ann": 300, "bob": 600, "cleo": 900, "dan": 1200}
    sounds = {name: packed(tone(own, 0.2)) for name, own in hertz.items()}
    rows = [(sounds[name], label, name) for label in (0, 1) for name in ("dan", "ann", "cleo", "bob")]
    write(tmp_path / "fsdd" / "data", rows[:5], rows[5:])
    official, by_speaker = DATASETS["fsdd"](tmp_path), DATASETS["fsdd_by_speaker"](tmp_path)
    assert official.shown[-official.test :] == ("spoken by ann", "spoken by cleo", "spoken by bob")
    assert set(by_speaker.shown[-by_speaker.test :]) == {"spoken by ann", "spoken by bob"}
    assert set(by_speaker.shown[: -by_speaker.test]) == {"spoken by cleo", "spoken by dan"}
    for source in (official, by_speaker):
        assert source.inputs.shape == (8, 1, MELS, FRAMES)
        for row, shown in enumerate(source.shown):
            expected = seen(samples_of(Path("x"), 0, sounds[shown.removeprefix("spoken by ")]))
            assert np.array_equal(source.inputs[row, 0], expected.numpy())
    pairs = [sorted(zip(one.labels, one.shown, strict=True)) for one in (official, by_speaker)]
    assert pairs[0] == pairs[1]


def test_fsdd_that_is_missing_or_malformed_is_refused(tmp_path):
    sound = packed(tone(300, 0.1))
    good, fast = (sound, 3, "ann"), packed(tone(300, 0.1), rate=16000)
    hertz = "row 0 of .* has 1 channels of 16 bits at 16000 Hz .*; wanted 1 of 16 bits at 8000 Hz"
    for rows, message in (
        ([], r"cannot read .*train-00000-of-00001.parquet: no such file. Get .*github.com/Jakobovski"),
        ([good, (b"no sound", 1, "ann")], "is corrupt: row 1 is no WAV file"),
        ([(fast, 1, "ann")], hertz),
        ([(packed(torch.zeros(0)), 1, "ann")], "and 0 bytes of sound; wanted .* not empty"),
        ([(sound, 10, "ann")], "has labels from 10 to 10; wanted 0 to 9"),
    ):
        if rows:
            write(tmp_path / "fsdd", rows, [good])
        with pytest.raises(WrongInput, match=message):
            load("fsdd", str(tmp_path))


@pytest.mark.skipif(not (SHARED / "fsdd").exists(), reason="FSDD is not there: set LSCAL_DATA")
def test_the_real_speakers():
    source = DATASETS["fsdd_by_speaker"](SHARED)
    assert source.test == 1000
    assert set(source.shown[-1000:]) == {"spoken by george", "spoken by jackson"}
    assert (np.bincount(source.labels[-1000:]) == 100).all()
    assert np.isfinite(source.inputs).all()
