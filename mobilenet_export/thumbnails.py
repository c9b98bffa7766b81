"""Small copies of images, to look at in a report."""

import io

from PIL import Image, ImageOps

from mobilenet_export.images import ImageSet

_QUALITY = 80


def thumbnail(image: Image.Image, side_px: int) -> bytes:
    """Return a copy of which neither side is longer than `side_px`, as JPEG."""
    small = image.copy()
    small.thumbnail((side_px, side_px))
    return _jpeg(small)


def contact_sheet(image_set: ImageSet, most: int, side_px: int, columns: int) -> bytes | None:
    """Return the middle squares of up to `most` images, spread over the set, side by side as one JPEG.

    None of images that are preprocessed, and so no pictures any more.
    """
    step = max(len(image_set) / most, 1)
    names = [image_set.names[int(i * step)] for i in range(min(most, len(image_set)))]
    pictures = [picture for name in names if isinstance(picture := image_set.load(name), Image.Image)]
    if not pictures:
        return None
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * side_px, rows * side_px), "white")
    for index, picture in enumerate(pictures):
        place = (index % columns * side_px, index // columns * side_px)
        sheet.paste(ImageOps.fit(picture.convert("RGB"), (side_px, side_px)), place)
    return _jpeg(sheet)


def _jpeg(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()
