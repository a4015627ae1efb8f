"""Pictures turned as their EXIF says."""

from PIL import ExifTags, Image

__all__ = ["upright"]

_TURNS = {  # that set a picture upright, by its orientation in EXIF
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image) -> Image.Image:
    """The picture, turned as the service would; OSError if it is not whole."""
    image.load()
    try:  # ImageOps.exif_transpose also writes the EXIF anew, and fails where that is odd
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # nearly anything, on EXIF that is odd; the pixels are whole
        return image
    return image if turn is None else image.transpose(turn)
