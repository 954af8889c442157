"""Images of the data on a page: the pixels are in it, since a page loads nothing."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from entropy_cli.core.escaping import escape_html
from entropy_cli.images.members import StoredImage

SIDE, QUALITY = 160, 85  # pixels, of JPEG


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        jpeg: its file; None if the image could not be read.
        name: what it is of.
        group: the heading that it stands under.
        caption: the text below it.
    """

    jpeg: bytes | None
    name: str
    group: str
    caption: str


def picture(source: Path | StoredImage | None, path: str, group: str, caption: str) -> Picture:
    """Return the middle of an image as a picture; without pixels if it is None or can't be read."""
    if source is None:
        return Picture(None, path, group, caption)
    from PIL import Image, ImageOps

    from entropy_cli.images.decode import read_image  # imports torch

    size = (SIDE, SIDE)
    img_3HW = read_image(source, lambda image: ImageOps.fit(image.convert("RGB"), size))
    if isinstance(img_3HW, str):
        return Picture(None, path, group, caption)
    content = io.BytesIO()
    Image.fromarray(img_3HW.permute(1, 2, 0).numpy()).save(content, "JPEG", quality=QUALITY)
    return Picture(content.getvalue(), path, group, caption)


def pictures_html(pictures: Sequence[Picture]) -> str:
    """Return the HTML of pictures, in rows below the headings of their groups."""
    groups: dict[str, list[str]] = {}
    for one in pictures:
        name = escape_html(one.name)
        shown = f"<p>{name} could not be read</p>"
        if one.jpeg is not None:
            data = base64.b64encode(one.jpeg).decode("ascii")
            source = f"data:image/jpeg;base64,{data}"
            shown = f'<img src="{source}" alt="{name}" width="{SIDE}" height="{SIDE}">'
        figure = f"<figure>{shown}<figcaption>{escape_html(one.caption)}</figcaption></figure>"
        groups.setdefault(one.group, []).append(figure)
    return "".join(
        f'<h3>{escape_html(group)}</h3><div class="pictures">{"".join(figures)}</div>'
        for group, figures in groups.items()
    )
