"""Encoded images, PNG and JPEG, as pixels. Needs Pillow: the extra ``images``."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np

from edge_client.classify import Array
from edge_client.errors import InputError, LoadError

MAX_IMAGE_BYTES = 64 * 1024**2
MAX_IMAGE_PIXELS = 50_000_000
"""As a camera of today takes; 150 MB when decoded. A small file can claim any size."""

MAX_IMAGE_SIDE = 65_535
"""As JPEG has it: memory for each row is taken before anything is read."""

_FORMATS = ("PNG", "JPEG")
_DEEP = ("I", "F")
"""What Pillow calls modes of more than 8 bits (``I;16`` and the like begin so, too)."""


def need_pillow() -> None:
    """See at once whether images can be decoded here.

    Raises:
        LoadError: Pillow is not installed.
    """
    try:
        import PIL.Image  # noqa: F401, PLC0415 - an extra
    except ImportError:
        msg = "the model takes encoded images, and Pillow is not installed"
        raise LoadError(msg, hint="pip install 'argosy[images]'") from None


def decode(data: bytes, mode: Literal["L", "RGB"]) -> Array:
    """Decode an image, turned as its EXIF orientation says: uint8, [height, width, 1 or 3].

    An alpha channel is dropped, a palette is looked up.

    Raises:
        InputError: it is no PNG or JPEG, is damaged, or is larger than is decoded here.
    """
    from PIL import Image, ImageOps  # noqa: PLC0415 - an extra, and slow to import

    if len(data) > MAX_IMAGE_BYTES:
        msg = f"the image has {len(data)} bytes, more than {MAX_IMAGE_BYTES}"
        raise InputError(msg, hint="make it smaller before giving it to the model")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _refuse(image)
            turned = ImageOps.exif_transpose(image)
            pixels = np.asarray(turned.convert(mode))
    except InputError:
        raise
    except MemoryError as error:
        msg = "there is not enough memory to decode the image"
        raise InputError(msg) from error
    except Exception as error:  # a damaged file makes Pillow raise anything
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        why = "it is no PNG or JPEG" if "cannot identify" in why else why
        msg = f"the image cannot be decoded: {why}"
        raise InputError(msg, hint="give the bytes of a PNG or JPEG file") from error
    return pixels[:, :, None] if mode == "L" else pixels


def _refuse(image: Any) -> None:
    width, height = image.size
    if max(width, height) > MAX_IMAGE_SIDE:
        msg = f"the image has {width} x {height} pixels, more than {MAX_IMAGE_SIDE} at a side"
        raise InputError(msg, hint="cut it to a more usual form first")
    if width * height > MAX_IMAGE_PIXELS:
        msg = f"the image has {width} x {height} pixels, more than {MAX_IMAGE_PIXELS} in all"
        raise InputError(msg, hint="make it smaller before giving it to the model")
    if image.mode.startswith(_DEEP):
        msg = f"the image has more than 8 bits a channel (mode {image.mode})"
        raise InputError(msg, hint="save it with 8 bits: how to scale the rest is not said")
