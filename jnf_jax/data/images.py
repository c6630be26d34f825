"""Images of people's files as arrays: upright, 8 bits a channel, on white where they are transparent."""

import numpy as np
import PIL.Image
import PIL.ImageOps

_DEEP = ("I", "F")  # modes of more than 8 bits, which would be cut off without a word
_GREY = ("1", "L", "LA")


def is_grey(image: PIL.Image.Image) -> bool:
    """Returns whether an image has one channel of grey, beside its transparency."""
    return image.mode in _GREY


def as_array(image: PIL.Image.Image, mode: str, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """Returns an image `[H, W, C]` uint8.

    Args:
      image: as it was opened.
      mode: `RGB` or `L`, grey.
      size: (height, width) that it is scaled to; None: its own.

    Raises:
      ValueError: if a channel has more than 8 bits.
    """
    # Pillow cuts deep colours off as it reads them, and names no mode for them
    cut = (
        image.mode.startswith("RGB")
        and image.format == "PNG"
        and any(";16B" in str(tile[-1]) for tile in getattr(image, "tile", ()))
    )
    if cut or image.mode.startswith(_DEEP):
        raise ValueError(f"Expected an image of 8 bits a channel, got {'16 bits' if cut else f'mode {image.mode!r}'}.")
    image = PIL.ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
    image = image.convert(mode)
    if size is not None:
        image = image.resize(size[::-1], PIL.Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(image.height, image.width, -1)
