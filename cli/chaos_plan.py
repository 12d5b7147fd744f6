"""What a chaos run will do: a pure function of seed, minutes and rate, so that a run that found something is repeated.

The plan is the same each time; how processes, disks and the network take it is not, so a seed may need a few runs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from core.faults import KINDS, STEPS, Place

# (kind, target, weight, shortest and longest seconds)
SERVER_BLOWS: Sequence[tuple[str, str, int, tuple[float, float]]] = (
    ("kill", "worker", 5, (0, 0)),
    ("kill", "api", 3, (0, 0)),
    ("kill", "postgres", 4, (0, 0)),
    ("kill", "valkey", 2, (0, 0)),
    ("kill", "temporal", 4, (0, 0)),
    ("kill", "processor", 3, (0, 0)),
    ("pause", "worker", 4, (3, 8)),  # longer than an attempt: a zombie that comes back late
    ("pause", "postgres", 2, (1, 4)),
    ("pause", "temporal", 2, (1, 4)),
    ("pause", "processor", 2, (1, 5)),
    ("pause", "api", 1, (1, 3)),
    ("off", "valkey", 2, (3, 10)),
)
SOFT_BLOWS = (("step", 6), ("processor", 5), ("terminate", 2), ("reset", 1))
# what the processor does, with what; a mode it does not know is passed over
PROCESSOR_MODES: Sequence[dict[str, Any]] = (
    {"mode": "reply_lost", "rate": 0.5},
    {"mode": "silent", "seconds": 4, "rate": 0.3},
    {"mode": "drop", "rate": 0.5},
    {"mode": "error_500", "rate": 0.5},
    {"mode": "error_500_after", "rate": 0.3},
    {"mode": "error_503", "rate": 0.5},
    {"mode": "error_429", "rate": 0.5},
    {"mode": "latency", "seconds": 1, "rate": 0.5},
    {"mode": "latency_after", "seconds": 3, "rate": 0.3},
    {"mode": "latency_in_flight", "seconds": 2, "rate": 0.3},
    {"mode": "webhook_lost", "rate": 0.5},
    {"mode": "webhook_late", "seconds": 3, "rate": 0.5},
    {"mode": "webhook_duplicate", "rate": 0.5},
    {"mode": "webhook_bad_signature", "rate": 0.5},
    {"mode": "success_twice", "rate": 0.2},
    {"mode": "wrong_amount", "rate": 0.3},
)
WORKERS = ("worker", "worker-2")
SERVER_PAUSES = (5.0, 20.0)  # seconds between two blows at servers
SOFT_PAUSES = (2.0, 8.0)
PRODUCTS = 12
SCARCE = 4  # of them sell out
CARDS = (("visa", 70), ("declined", 14), ("authentication", 16))
MOST_MINUTES, MOST_RATE = 120.0, 50.0


@dataclass(frozen=True)
class Blow:
    """Something that goes wrong `at` seconds after the start, for `seconds` if it lasts."""

    at: float
    kind: str
    target: str
    seconds: float = 0
    given: dict[str, Any] = field(default_factory=dict)

    @property
    def says(self) -> str:
        how_long = f" {self.seconds:.1f} s" if self.seconds else ""
        details = " ".join(f"{name}={value}" for name, value in self.given.items())
        return f"{self.kind} {self.target}{how_long} {details}".rstrip()


@dataclass(frozen=True)
class Wish:
    """An order that somebody will want: products are 0..PRODUCTS-1, times are seconds."""

    at: float
    number: int
    lines: dict[int, int]  # product -> quantity
    card: str
    then: str  # what the shopper does when declined or sent to the bank: another, abandon, complete, fail
    wait: float  # Prefer: wait
    cancel_after: float | None = None  # of placing
    cancel_sold: bool = False
    twice: bool = False  # the same request side by side


@dataclass(frozen=True)
class Plan:
    seed: int
    minutes: float
    rate: float
    stock: tuple[int, ...]
    wishes: tuple[Wish, ...]
    blows: tuple[Blow, ...]

    @property
    def seconds(self) -> float:
        return self.minutes * 60


def make_plan(seed: int, minutes: float, rate: float) -> Plan:
    """`rate` is orders a second."""
    random = Random(seed)
    seconds = minutes * 60
    wishes = tuple(_wishes(random, seconds, rate))
    ordered = sum(sum(wish.lines.values()) for wish in wishes)
    share = max(1, ordered // PRODUCTS)
    stock = tuple(max(1, share * 2 // 3) if product < SCARCE else 3 * share for product in range(PRODUCTS))
    blows = sorted([*_server_blows(random, seconds), *_soft_blows(random, seconds)], key=lambda blow: blow.at)
    return Plan(seed, minutes, rate, stock, wishes, tuple(blows))


def _wishes(random: Random, seconds: float, rate: float) -> Iterator[Wish]:
    at, number = random.expovariate(rate), 0
    while at < seconds:
        card = _drawn(random, CARDS)
        products = random.sample(range(PRODUCTS), random.choice((1, 1, 2, 3)))
        yield Wish(
            at=round(at, 3),
            number=number,
            lines={product: random.choice((1, 1, 2)) for product in sorted(products)},
            card=card,
            then=random.choice(("another", "another", "abandon"))
            if card == "declined"
            else random.choice(("complete", "complete", "complete", "fail", "abandon")),
            wait=random.choice((0, 1, 3)),
            cancel_after=round(random.uniform(0, 3), 2) if random.random() < 0.12 else None,
            cancel_sold=random.random() < 0.08,
            twice=random.random() < 0.15,
        )
        at, number = at + random.expovariate(rate), number + 1


def _server_blows(random: Random, seconds: float) -> Iterator[Blow]:
    at = random.uniform(2, 6)
    while at < seconds:
        kind, target, _, (shortest, longest) = random.choices(SERVER_BLOWS, [blow[2] for blow in SERVER_BLOWS])[0]
        name = random.choice(WORKERS) if target == "worker" else target
        yield Blow(round(at, 2), kind, name, round(random.uniform(shortest, longest), 1))
        at += random.uniform(*SERVER_PAUSES)


def _soft_blows(random: Random, seconds: float) -> Iterator[Blow]:
    at = random.uniform(1, 4)
    while at < seconds:
        yield _soft_blow(random, round(at, 2))
        at += random.uniform(*SOFT_PAUSES)


def _soft_blow(random: Random, at: float) -> Blow:
    kind = _drawn(random, SOFT_BLOWS)
    if kind == "processor":
        return Blow(at, kind, "processor", round(random.uniform(3, 10), 1), dict(random.choice(PROCESSOR_MODES)))
    if kind != "step":
        return Blow(at, kind, "workflow", given={"pick": round(random.random(), 3)})
    place: Place = "worker" if random.random() < 0.8 else "api"
    fault = {
        "place": place,
        "kind": random.choice([one for one in KINDS[place] if one != "refuse"]),  # that is a bug of ours, not a fault
        "step": random.choice(STEPS[place]),
        "moment": random.choice(("before", "after")),
        "seconds": round(random.uniform(1, 5), 1),
        "times": random.choice((1, 1, 2, 3)),
    }
    return Blow(at, kind, place, given=fault)


def _drawn(random: Random, weighted: Sequence[tuple[str, int]]) -> str:
    return random.choices([name for name, _ in weighted], [weight for _, weight in weighted])[0]
