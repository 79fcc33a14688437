"""Spectrogram: a recording as the logarithm of its energy in bands of the mel scale, frame by frame."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

FLOOR = 1e-3
"""Added to energies before their logarithm, where the loudest sample is 1: softer sounds are silence."""


@dataclass(frozen=True)
class Spectrogram:
    """What makes spectrograms of one size.

    Attributes:
        rate: samples in a second.
        window, hop: samples in a frame, and from a frame to the next.
        bands, frames: the size of a spectrogram.
    """

    rate: int
    window: int
    hop: int
    bands: int
    frames: int

    @property
    def length(self) -> int:
        """The samples that a spectrogram shows."""
        return self.window + self.hop * (self.frames - 1)

    def levelled(self, samples: Float[Tensor, " sample"]) -> Float[Tensor, " length"]:
        """A recording of `length` samples, the loudest of which is 1: shorter ones are followed by silence,
        longer ones are cut.
        """
        loudest = samples.abs().max().clamp(min=1e-6)
        return torch.nn.functional.pad(
            samples[: self.length] / loudest, (0, max(0, self.length - len(samples)))
        )

    def log_mel(
        self, recordings: Float[Tensor, "*recording length"]
    ) -> Float[Tensor, "*recording band frame"]:
        """The logarithm of the energy in each band and frame, under Hann's window."""
        shape = torch.hann_window(self.window)
        spectrum = torch.stft(
            recordings, self.window, self.hop, window=shape, center=False, return_complex=True
        )
        return (self.filters @ spectrum.abs().square() + FLOOR).log()

    @cached_property
    def filters(self) -> Float[Tensor, "band frequency"]:
        """Triangles over the frequencies of a spectrum, equally wide on the mel scale 2595 log10(1 + f/700
        Hz) from 0 to half the rate.
        """
        highest = 2595 * np.log10(1 + self.rate / 2 / 700)
        corners = torch.from_numpy(700 * (10 ** (np.linspace(0, highest, self.bands + 2) / 2595) - 1))
        frequencies = torch.linspace(0, self.rate / 2, self.window // 2 + 1, dtype=torch.float64)
        low, peak, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
        rising, falling = (frequencies - low) / (peak - low), (high - frequencies) / (high - peak)
        return torch.minimum(rising, falling).clamp(min=0).float()
