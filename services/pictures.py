"""A picture for each product that has none: shapes, colours and initials that follow from its id, name and category."""

import math
import random
import zlib
from html import escape

WIDTH, HEIGHT = 640, 480
COLOUR_STEP = 0.61803398875  # the golden ratio keeps the hues of neighbours apart


def product_picture(product_id: int, name: str, category: str) -> str:
    """An SVG document, the same for the same product every time; no script, no style, nothing fetched."""
    shapes = random.Random(f"{product_id}:{category}:{name}")
    hue = int(zlib.crc32(category.encode()) * COLOUR_STEP) % 360
    drawn = shapes.choice((_circles, _waves, _tiles, _rays))(shapes, hue)
    initials = escape("".join(word[0] for word in name.split() if word[0].isalnum())[:2].upper())
    label = escape(name, quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f'<defs><linearGradient id="g" x2="1" y2="1"><stop stop-color="hsl({hue},52%,88%)"/>'
        f'<stop offset="1" stop-color="hsl({(hue + 40) % 360},48%,72%)"/></linearGradient></defs>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="url(#g)"/>{drawn}'
        f'<circle cx="320" cy="240" r="104" fill="#fff" fill-opacity=".86"/>'
        f'<text x="320" y="240" dy=".36em" text-anchor="middle" font-family="Georgia,serif" font-size="92" '
        f'fill="hsl({hue},45%,32%)">{initials}</text></svg>'
    )


def _colour(shapes: random.Random, hue: int) -> str:
    return f"hsl({(hue + shapes.randint(-28, 48)) % 360},{shapes.randint(45, 70)}%,{shapes.randint(48, 68)}%)"


def _circles(shapes: random.Random, hue: int) -> str:
    return "".join(
        f'<circle cx="{shapes.randint(0, WIDTH)}" cy="{shapes.randint(0, HEIGHT)}" r="{shapes.randint(30, 130)}" '
        f'fill="{_colour(shapes, hue)}" fill-opacity=".42"/>'
        for _ in range(9)
    )


def _waves(shapes: random.Random, hue: int) -> str:
    drawn = []
    for nth in range(5):
        top, swing = 120 + nth * 70, shapes.randint(30, 90)
        drawn.append(
            f'<path d="M0 {top}C{WIDTH // 3} {top - swing},{2 * WIDTH // 3} {top + swing},{WIDTH} {top}'
            f'V{HEIGHT}H0Z" fill="{_colour(shapes, hue)}" fill-opacity=".4"/>'
        )
    return "".join(drawn)


def _tiles(shapes: random.Random, hue: int) -> str:
    side = 80
    return "".join(
        f'<rect x="{x}" y="{y}" width="{side}" height="{side}" rx="{shapes.choice((0, 12, 40))}" '
        f'fill="{_colour(shapes, hue)}" fill-opacity="{shapes.choice((".15", ".3", ".5"))}"/>'
        for x in range(0, WIDTH, side)
        for y in range(0, HEIGHT, side)
        if shapes.random() < 0.7
    )


def _rays(shapes: random.Random, hue: int) -> str:
    drawn = []
    start, count = shapes.random(), 12
    for nth in range(count):
        left, right = ((start + nth + share) * 2 * math.pi / count for share in (0, 0.55))
        corners = " ".join(f"{320 + 460 * math.cos(a):.0f},{240 + 460 * math.sin(a):.0f}" for a in (left, right))
        drawn.append(f'<polygon points="320,240 {corners}" fill="{_colour(shapes, hue)}" fill-opacity=".4"/>')
    return "".join(drawn)
