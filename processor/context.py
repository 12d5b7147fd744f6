"""What an operation works with: one account's view inside one database transaction."""

import time
from dataclasses import dataclass, field

from processor.database import Connection


@dataclass(frozen=True)
class Context:
    """`base_url` is where a browser reaches the processor's pages; `now` is in whole seconds."""

    connection: Connection
    account: str
    base_url: str
    now: int = field(default_factory=lambda: int(time.time()))
