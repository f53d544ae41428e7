"""Payment codes as images: drawn for a wallet's screen, read from a till's camera.

Needs the `demo` extra: segno draws QR codes (ISO/IEC 18004; 24 digits fit version 1 with error correction Q), zxing-cpp
draws Code 128 (ISO/IEC 15417) and reads both, Pillow handles image files. Without them, importing this module raises
ImageLibrariesMissing.
"""

import io
import warnings
from pathlib import Path
from typing import Literal

from .errors import ImageError, ImageLibrariesMissing

try:
    import segno
    import zxingcpp
    from PIL import Image
except ImportError as error:
    raise ImageLibrariesMissing(
        "the libraries that draw and read codes are not installed: run pip install 'pos-server[demo]'"
    ) from error

Symbology = Literal["qr", "code128"]

IMAGE_BYTES_MAX = 32 * 1024 * 1024
IMAGE_PIXELS_MAX = 50_000_000
"""The resolution of the largest phone cameras."""

_MODULE_PIXELS = 10
_BAR_PIXELS = 3
_QUIET_MODULES = 4  # ISO/IEC 18004 requires a quiet zone of four modules
_FILE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # Pillow reads more formats, some with external programs
_READ_FORMATS = zxingcpp.BarcodeFormats([zxingcpp.BarcodeFormat.QRCode, zxingcpp.BarcodeFormat.Code128])
# Colors 231 and 16 of the 256-color cube are white and black in every theme.
_TERMINAL_LIGHT_ON_DARK = "\x1b[38;5;231;48;5;16m"
_TERMINAL_RESET = "\x1b[0m"


def qr_terminal(digits: str) -> str:
    """Draw a QR code as lines of half blocks, 29 columns by 15 lines, readable on dark and light terminals."""
    out = io.StringIO()
    segno.make_qr(digits).terminal(out, border=_QUIET_MODULES, compact=True)
    return "\n".join(f"{_TERMINAL_LIGHT_ON_DARK}{line}{_TERMINAL_RESET}" for line in out.getvalue().splitlines())


def qr_png(digits: str) -> bytes:
    """Draw a QR code and return it as a PNG file."""
    return _qr_file(digits, "png")


def code128_png(digits: str) -> bytes:
    """Draw a Code 128 barcode and return it as a PNG file."""
    bitmap = zxingcpp.write_barcode_to_image(_code128(digits), scale=_BAR_PIXELS)
    out = io.BytesIO()
    Image.fromarray(bitmap).save(out, "PNG")
    return out.getvalue()


def save_code(digits: str, path: Path, symbology: Symbology) -> None:
    """Draw a code into a PNG or SVG file, chosen by the suffix of `path`. Raises ImageError."""
    match path.suffix.lower(), symbology:
        case ".png", "qr":
            content = qr_png(digits)
        case ".png", "code128":
            content = code128_png(digits)
        case ".svg", "qr":
            content = _qr_file(digits, "svg")
        case ".svg", "code128":
            content = zxingcpp.write_barcode_to_svg(_code128(digits), scale=_BAR_PIXELS).encode()
        case _:
            raise ImageError(f"cannot draw to {path}: the file name must end in .png or .svg")
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ImageError(f"cannot write {path}: {error.strerror}") from error


def read_code(source: Path | bytes) -> str:
    """Return the text of the single QR code or Code 128 barcode in an image: a file's path, or a file's content.

    Repeated codes with the same text count as one. Raises ImageError for no code, for different codes, and for a file
    whose format or size no camera produces.
    """
    texts = {barcode.text for barcode in zxingcpp.read_barcodes(_open(source), formats=_READ_FORMATS)}
    if not texts:
        raise ImageError("the image contains no QR code or Code 128 barcode: take it again, closer and in focus")
    if len(texts) > 1:
        raise ImageError(f"the image contains {len(texts)} different codes: show only one")
    return texts.pop()


def _open(source: Path | bytes) -> Image.Image:
    content = source if isinstance(source, bytes) else _read_file(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # IMAGE_PIXELS_MAX is smaller
            image = Image.open(io.BytesIO(content), formats=_FILE_FORMATS)
        if image.width * image.height > IMAGE_PIXELS_MAX:
            raise ImageError(f"the image has more than {IMAGE_PIXELS_MAX} pixels: use a smaller one")
        if not image.has_transparency_data:
            return image.convert("L")
        opaque = Image.new("RGBA", image.size, "white")  # transparent pixels count as white paper
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("L")
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"the image has more than {IMAGE_PIXELS_MAX} pixels: use a smaller one") from error
    except Exception as error:  # damaged files make Pillow's plugins raise arbitrary exceptions
        raise ImageError(f"the file is not a readable image: use {', '.join(_FILE_FORMATS)}") from error


def _read_file(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise ImageError(f"{path} is not a file")
        with path.open("rb") as file:
            content = file.read(IMAGE_BYTES_MAX + 1)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > IMAGE_BYTES_MAX:
        raise ImageError(f"{path} has more than {IMAGE_BYTES_MAX} bytes: use a smaller image")
    return content


def _qr_file(digits: str, kind: Literal["png", "svg"]) -> bytes:
    out = io.BytesIO()
    segno.make_qr(digits).save(out, kind=kind, scale=_MODULE_PIXELS, border=_QUIET_MODULES, light="white")
    return out.getvalue()


def _code128(digits: str) -> zxingcpp.Barcode:
    return zxingcpp.create_barcode(digits, zxingcpp.BarcodeFormat.Code128)
