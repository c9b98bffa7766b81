"""The part of the page that shows the self-check's images, and what fp32 and int8 make of them."""

from collections.abc import Sequence

import numpy as np

from mobilenet_export.graph import FloatArray
from mobilenet_export.html_report.holdings import Holdings
from mobilenet_export.html_report.markup import Html, bar, jpeg, paragraph, section, table, tag, text
from mobilenet_export.html_report.spelling import tone
from mobilenet_export.thumbnails import thumbnail

_BEST = 5
_PICTURE_PX = 160


def self_check(held: Holdings) -> Html:
    """Show each image with the probabilities of its best classes, one file beside the other."""
    names = " and ".join(one.file.path for one in held.answers)
    intro = (
        f"Class probabilities that {names} give. The images are drawn, so no class is right: "
        "the answers have to be alike."
    )
    found = [_article(held, index) for index in range(len(held.pictures))]
    return section("self-check", "Self-check", paragraph(intro), tag("div", *found, class_="answers"))


def _article(held: Holdings, index: int) -> Html:
    name, columns = held.names[index], [(one.file, one.shares[index]) for one in held.answers]
    rows = [
        [
            text(held.labels[place]),
            *(
                bar(float(shares[place]), f"{100 * shares[place]:.1f} %", tone(file.precision))
                for file, shares in columns
            ),
        ]
        for place in _classes([shares for _, shares in columns])
    ]
    return tag(
        "article",
        tag("h3", text(name)),
        paragraph(_verdict([shares for _, shares in columns]), "note"),
        jpeg(thumbnail(held.pictures[index], _PICTURE_PX), f"Self-check image {name}"),
        table(f"Best classes of {name}", ["Class", *(file.precision for file, _ in columns)], rows, ()),
        class_="answer",
    )


def _best(shares: FloatArray) -> list[int]:
    return [int(place) for place in np.argsort(-shares, kind="stable")[:_BEST]]


def _classes(columns: Sequence[FloatArray]) -> list[int]:
    """The best five of the first file, and the best of the other where it is none of these."""
    first, *others = map(_best, columns)
    return first + [best[0] for best in others if best[0] not in first]


def _verdict(columns: Sequence[FloatArray]) -> str:
    first, *others = map(_best, columns)
    told = [
        f"{'The same' if best[0] == first[0] else 'Another'} best class; "
        f"{len({*best} & {*first})} of the best {len(first)} are shared."
        for best in others
    ]
    return " ".join(told)
