"""Makes a folder of photograph-like JPEG files (1/f noise, 500x375, quality 95), one subfolder a class."""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image


def photo(rng: np.random.Generator, kind: int, height: int = 375, width: int = 500) -> Image.Image:
    """A picture with the spectrum of a photograph; the class sets its colour cast and its grain's direction."""
    fy = np.fft.fftfreq(height)[:, None] * (1 + 0.6 * (kind % 3))
    fx = np.fft.rfftfreq(width)[None, :] * (1 + 0.6 * (kind // 3))
    amplitude = 1 / np.maximum(np.hypot(fx, fy), 1 / width) ** 1.1
    layers = []
    for channel in range(3):
        noise = rng.normal(size=amplitude.shape) + 1j * rng.normal(size=amplitude.shape)
        layer = np.fft.irfft2(amplitude * noise, s=(height, width))
        layer = 127 + 55 * layer / layer.std() + 12 * ((kind + channel) % 3 - 1)
        layers.append(layer)
    return Image.fromarray(np.clip(np.stack(layers, -1), 0, 255).astype(np.uint8))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--classes", type=int, default=6)
    parser.add_argument("--per-class", type=int, default=100)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    for kind in range(args.classes):
        folder = args.folder / f"class{kind}"
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(args.per_class):
            path = folder / f"{i:04d}.jpg"
            if not path.exists():
                photo(rng, kind).save(path, quality=95)
    print(f"{args.classes * args.per_class} photographs in {args.folder}")
