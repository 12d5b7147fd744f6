"""Plans of `mercato chaos` that are run again and again: what each is made of, or what it found."""

from typing import NamedTuple


class Seed(NamedTuple):
    seed: int
    minutes: float
    rate: float
    why: str


SHORT = (
    Seed(30, 0.4, 4, "Temporal paused, PostgreSQL and the API killed one after the other"),
    Seed(37, 0.4, 4, "both workers killed, and crashes at steps besides"),
)
LONG = (
    Seed(37, 1.5, 5, "found a card forgotten with its worker: sold, and its money to be voided for ever"),
    Seed(19, 2, 5, "workers that stand still longer than an attempt, and come back late"),
    Seed(31, 2, 5, "found two cancels told at once, a 500, and a wrong amount that its key brings for ever"),
)
