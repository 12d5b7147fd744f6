"""A believable assortment, made from word lists: the same on every machine, every time."""

import random
from dataclasses import dataclass

PRODUCTS_A_CATEGORY = 100


@dataclass(frozen=True)
class Shelf:
    """A category and the words its products are made of; prices in euros."""

    slug: str
    name: str
    code: str
    things: tuple[str, ...]
    kinds: tuple[str, ...]
    cheapest: int
    dearest: int
    sentence: str


@dataclass(frozen=True)
class DemoProduct:
    """Price in minor units."""

    sku: str
    name: str
    description: str
    category: str
    price_amount: int
    on_hand: int


def _words(line: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in line.split(","))


SHELVES = (
    Shelf(
        "books", "Books", "BOOK",
        _words(
            "Lighthouse, Orchard, Cartographer, Winter, Harbour, Clockmaker, River, Library, Island, Garden, "
            "Voyage, Letters"
        ),
        _words(
            "The Silent, The Last, A Distant, The Borrowed, The Glass, An Unfinished, The Northern, The "
            "Forgotten, A Quiet, The Seventh"
        ),
        8, 32, "A novel in 312 pages, sewn binding, printed on paper from managed forests.",
    ),
    Shelf(
        "electronics", "Electronics", "ELEC",
        _words(
            "Headphones, Keyboard, Speaker, Monitor, Mouse, Charger, Webcam, Power Bank, Microphone, Smart Lamp, "
            "Tablet, Router"
        ),
        _words(
            "Wireless, Compact, Mechanical, Noise-Cancelling, Portable, Ultra-Slim, Rechargeable, Ergonomic, "
            "Foldable, Professional"
        ),
        19, 420, "{kind} design, up to 30 hours of use on one charge, two years of warranty.",
    ),
    Shelf(
        "kitchen", "Kitchen", "KITC",
        _words(
            "Chef Knife, Frying Pan, Kettle, Mixing Bowl, Cutting Board, Teapot, Coffee Grinder, Casserole, "
            "Measuring Cup, Whisk, Colander, Mug"
        ),
        _words(
            "Cast-Iron, Stainless, Enamelled, Copper, Ceramic, Bamboo, Hammered, Double-Walled, Stackable, Hand- "
            "Thrown"
        ),
        6, 160, "{kind} and built for every day; safe in the dishwasher, made to be handed down.",
    ),
    Shelf(
        "home", "Home & Living", "HOME",
        _words(
            "Table Lamp, Wool Blanket, Cushion, Wall Clock, Rug, Vase, Mirror, Candle Holder, Curtain, Bookshelf, "
            "Picture Frame, Armchair"
        ),
        _words("Scandinavian, Rustic, Woven, Minimal, Velvet, Walnut, Linen, Smoked-Glass, Vintage, Oak"),
        12, 480, "A {kind} piece that warms a room without asking for attention.",
    ),
    Shelf(
        "garden", "Garden", "GARD",
        _words(
            "Watering Can, Pruning Shears, Planter, Hand Trowel, Bird Feeder, Garden Hose, Seed Box, Lantern, "
            "Rain Gauge, Folding Chair, Compost Bin, Gloves"
        ),
        _words(
            "Galvanised, Weatherproof, Terracotta, Ash-Handled, Recycled, Telescopic, Frost-Proof, Lightweight, "
            "Heavy-Duty, Copper-Clad"
        ),
        7, 140, "{kind}, so that it may stay outside all year long.",
    ),
    Shelf(
        "toys", "Toys & Games", "TOYS",
        _words(
            "Puzzle, Building Blocks, Train Set, Board Game, Kite, Marble Run, Doll House, Memory Game, Spinning "
            "Top, Rocking Horse, Card Game, Stacking Rings"
        ),
        _words(
            "Wooden, Magnetic, Colourful, Cooperative, Pocket-Size, Giant, Glow-in-the-Dark, Classic, Musical, "
            "Travel"
        ),
        5, 95, "{kind} fun for two to six players, with no batteries and no small parts.",
    ),
    Shelf(
        "sports", "Sports & Outdoors", "SPRT",
        _words(
            "Yoga Mat, Running Belt, Dumbbell Set, Water Bottle, Backpack, Tent, Sleeping Bag, Jump Rope, Cycling "
            "Gloves, Headlamp, Trekking Poles, Football"
        ),
        _words(
            "Ultralight, All-Weather, Cushioned, Insulated, Reflective, Compressed, Anti-Slip, Quick-Dry, "
            "Expedition, Training"
        ),
        9, 290, "{kind} gear, tested for a season by people who are outside every day.",
    ),
    Shelf(
        "fashion", "Fashion", "FASH",
        _words(
            "Scarf, Sweater, Leather Belt, Rain Jacket, Canvas Shoes, Beanie, Cotton Shirt, Tote Bag, Socks, "
            "Denim Jacket, Sunglasses, Wallet"
        ),
        _words("Merino, Organic, Striped, Oversized, Tailored, Waxed, Brushed, Reversible, Ribbed, Handmade"),
        9, 210, "{kind}, cut to last longer than one season and easy to repair.",
    ),
    Shelf(
        "beauty", "Beauty & Care", "CARE",
        _words(
            "Hand Cream, Shampoo Bar, Face Oil, Bath Salt, Lip Balm, Body Lotion, Shaving Brush, Hair Comb, Clay "
            "Mask, Soap, Deodorant, Sun Cream"
        ),
        _words("Lavender, Unscented, Calendula, Rose, Sea-Mineral, Citrus, Oat, Sandalwood, Aloe, Chamomile"),
        4, 58, "{kind} care without perfume oils; kind to skin, refillable at any branch.",
    ),
    Shelf(
        "office", "Office & Paper", "OFFC",
        _words(
            "Notebook, Fountain Pen, Desk Organiser, Calendar, Pencil Set, Stapler, Document Folder, Desk Pad, "
            "Sketchbook, Ruler, Envelope Set, Whiteboard"
        ),
        _words(
            "Dotted, Leather-Bound, Brass, Refillable, Recycled-Paper, Modular, Felt, Hardcover, Pocket, "
            "Architect's"
        ),
        3, 90, "{kind} and quietly useful, for desks where work gets done.",
    ),
    Shelf(
        "grocery", "Fine Food", "FOOD",
        _words(
            "Olive Oil, Coffee Beans, Dark Chocolate, Honey, Green Tea, Pasta, Sea Salt, Apricot Jam, Granola, "
            "Balsamic Vinegar, Almonds, Pepper Mix"
        ),
        _words(
            "Single-Estate, Slow-Roasted, Organic, Wild, Stone-Ground, Cold-Pressed, Smoked, Highland, "
            "Barrel-Aged, Sun-Dried"
        ),
        3, 42, "{kind}, from one small producer whose name is on the label.",
    ),
    Shelf(
        "music", "Music & Instruments", "MUSC",
        _words(
            "Ukulele, Guitar Strings, Tambourine, Harmonica, Music Stand, Metronome, Drum Sticks, Kalimba, Guitar "
            "Capo, Recorder, Shaker, Instrument Stand"
        ),
        _words("Mahogany, Concert, Beginner's, Bright, Studio, Hickory, Travel, Chromatic, Folding, Maple"),
        6, 260, "A {kind} companion, set up and tuned in our own workshop.",
    ),
)  # fmt: skip


def demo_products() -> list[DemoProduct]:
    """`PRODUCTS_A_CATEGORY` products of each shelf; names differ within a shelf, SKUs everywhere."""
    return [product for shelf in SHELVES for product in _fill(shelf)]


def _fill(shelf: Shelf) -> list[DemoProduct]:
    dice = random.Random(f"mercato:{shelf.slug}")
    names = [(kind, thing) for kind in shelf.kinds for thing in shelf.things]
    dice.shuffle(names)
    return [_product(shelf, nth, kind, thing, dice) for nth, (kind, thing) in enumerate(names[:PRODUCTS_A_CATEGORY])]


def _product(shelf: Shelf, nth: int, kind: str, thing: str, dice: random.Random) -> DemoProduct:
    # most things are near the cheap end, and end in .90 or .50
    euros = shelf.cheapest + int((shelf.dearest - shelf.cheapest) * dice.random() ** 2)
    sentence = shelf.sentence.format(kind=kind.lower())
    return DemoProduct(
        sku=f"{shelf.code}-{1001 + nth}",
        name=f"{kind} {thing}",
        description=f"{thing}. {sentence[0].upper()}{sentence[1:]}",
        category=shelf.slug,
        price_amount=euros * 100 + dice.choice((50, 90)),
        on_hand=dice.randint(60, 400),
    )
