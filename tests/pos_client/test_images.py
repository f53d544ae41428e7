import io
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from pos_client import images
from pos_client.errors import ImageError
from pos_client.images import Symbology, code128_png, qr_png, qr_terminal, read_code, save_code

CODE = "771000000001301234567890"
codes = st.from_regex(r"77[1-9][0-9]{21}", fullmatch=True)


@settings(max_examples=15)
@given(codes)
def test_drawn_codes_are_read_back(digits: str) -> None:
    assert read_code(qr_png(digits)) == digits
    assert read_code(code128_png(digits)) == digits
    assert read_code(screenshot(qr_terminal(digits))) == digits


@pytest.mark.parametrize("symbology", ["qr", "code128"])
def test_a_png_file_is_read_back(symbology: Symbology, tmp_path: Path) -> None:
    path = tmp_path / "code.PNG"
    save_code(CODE, path, symbology)
    assert read_code(path) == CODE


@pytest.mark.parametrize("symbology", ["qr", "code128"])
def test_an_svg_file_draws_the_same_code(symbology: Symbology, tmp_path: Path) -> None:
    path = tmp_path / "code.svg"
    save_code(CODE, path, symbology)
    assert read_code(rendered(path)) == CODE


@pytest.mark.parametrize("angle", [90, 180, 7])
@pytest.mark.parametrize("draw", [qr_png, code128_png])
def test_a_rotated_scaled_jpeg_photo_is_read(angle: int, draw: Callable[[str], bytes]) -> None:
    image = Image.open(io.BytesIO(draw(CODE))).convert("L").rotate(angle, expand=True, fillcolor=200)
    assert read_code(as_file(image.resize((image.width * 2, image.height * 2)), "JPEG")) == CODE


def test_transparent_pixels_count_as_white() -> None:
    opaque = Image.open(io.BytesIO(qr_png(CODE))).convert("L")
    transparent = Image.new("RGBA", opaque.size, (0, 0, 0, 0))
    transparent.paste((0, 0, 0, 255), mask=opaque.point(lambda value: 255 - value))
    assert read_code(as_file(transparent)) == CODE


def test_the_same_code_in_both_symbologies_is_one_code() -> None:
    assert read_code(as_file(beside(qr_png(CODE), code128_png(CODE)))) == CODE


def test_different_codes_are_an_error_that_does_not_contain_them() -> None:
    with pytest.raises(ImageError, match="2 different codes") as error:
        read_code(as_file(beside(qr_png(CODE), qr_png(CODE[:-1] + "1"))))
    assert CODE[:-1] not in str(error.value)


def test_an_image_without_a_code_is_an_error() -> None:
    with pytest.raises(ImageError, match="no QR code or Code 128"):
        read_code(as_file(Image.new("L", (300, 200), "white")))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", qr_png(CODE)[:120], b"<svg/>", b"%!PS\n"])
def test_a_file_that_is_not_an_image_is_an_error(content: bytes) -> None:
    with pytest.raises(ImageError, match="not a readable image"):
        read_code(content)


@settings(max_examples=50)
@given(st.data())
def test_a_damaged_image_is_either_read_or_an_error(data: st.DataObject) -> None:
    content = bytearray(
        data.draw(st.sampled_from([qr_png(CODE), as_file(Image.open(io.BytesIO(qr_png(CODE))), "GIF")]))
    )
    for _ in range(3):
        content[data.draw(st.integers(8, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ImageError):
        read_code(bytes(content))


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "IMAGE_PIXELS_MAX", 100)
    with pytest.raises(ImageError, match="more than 100 pixels"):
        read_code(qr_png(CODE))
    huge = bytearray(qr_png(CODE))
    huge[16:24] = (60_000).to_bytes(4) * 2  # width and height in the PNG header, which invalidates its checksum
    with pytest.raises(ImageError):
        read_code(bytes(huge))


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ImageError, match="pixels"):
        read_code(qr_png(CODE))


def test_unreadable_files_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match="is not a file"):
        read_code(tmp_path)
    with pytest.raises(ImageError, match="No such file"):
        read_code(tmp_path / "none.png")
    monkeypatch.setattr(images, "IMAGE_BYTES_MAX", 10)
    path = tmp_path / "big.png"
    path.write_bytes(qr_png(CODE))
    with pytest.raises(ImageError, match="more than 10 bytes"):
        read_code(path)


def test_unwritable_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"must end in \.png or \.svg"):
        save_code(CODE, tmp_path / "code.jpg", "qr")
    with pytest.raises(ImageError, match="cannot write"):
        save_code(CODE, tmp_path / "none" / "code.png", "qr")


def test_without_the_extra_the_import_error_names_the_package_to_install() -> None:
    program = """
import sys
sys.modules["segno"] = None
from pos_client.errors import ClientError
try:
    import pos_client.images
except ClientError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.endswith("are not installed: run pip install 'pos-server[demo]'\n")


def as_file(image: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def beside(left: bytes, right: bytes) -> Image.Image:
    images = [Image.open(io.BytesIO(content)).convert("L") for content in (left, right)]
    canvas = Image.new("L", (sum(image.width for image in images), max(image.height for image in images)), "white")
    canvas.paste(images[0], (0, 0))
    canvas.paste(images[1], (images[0].width, 0))
    return canvas


def screenshot(text: str) -> bytes:
    """Render the text as a black-on-white terminal would, in cells of 10 by 20 pixels with the text's own colors."""
    rows = text.split("\n")
    canvas = Image.new("L", (360, 20 * len(rows) + 40), "white")
    draw = ImageDraw.Draw(canvas)
    for row, line in enumerate(rows):
        match = re.fullmatch(r"\x1b\[38;5;231;48;5;16m([ ▀▄█]*)\x1b\[0m", line)
        assert match
        for column, cell in enumerate(match[1]):
            x, y = 10 * column + 20, 20 * row + 20
            draw.rectangle((x, y, x + 9, y + 9), "white" if cell in "▀█" else "black")
            draw.rectangle((x, y + 10, x + 9, y + 19), "white" if cell in "▄█" else "black")
    return as_file(canvas)


def rendered(svg: Path) -> bytes:
    """Render an SVG file by segno or zxing-cpp: bars are horizontal strokes, one unit or the full height high."""
    root = ET.parse(svg).getroot()
    width, height = int(root.attrib["width"]), int(root.attrib["height"])
    scaled = root.find("{*}g[@transform='scale(10)']") is not None
    canvas = Image.new("L", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    x = y = 0.0
    for command, numbers in re.findall(r"([Mmh])(-?[\d.]+(?: -?[\d.]+)?)", root.findall(".//{*}path")[-1].attrib["d"]):
        first, *second = map(float, numbers.split())
        if command == "h":
            if first > 0 and scaled:
                draw.rectangle((x * 10, y * 10 - 5, (x + first) * 10 - 1, y * 10 + 4), "black")
            elif first > 0:
                draw.rectangle((x, 0, x + first - 1, height), "black")
            x += first
        else:
            x, y = (first, second[0]) if command == "M" else (x + first, y + second[0])
    return as_file(canvas)
