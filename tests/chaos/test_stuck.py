"""What is told of an order that does not come to an end."""

import io
from pathlib import Path

from rich.console import Console

from cli.stuck import open_orders, open_workflows, print_stuck, stuck_report
from core.faults import Fault, FaultFile
from tests.chaos.shop import Shop
from tests.e2e.shopper import eventually
from tests.stack import Platform


async def test_a_stuck_order_is_told_with_what_it_waits_for(arena: Platform, shop: Shop) -> None:
    faults = FaultFile(Path(arena.env["MERCATO_FAULTS_FILE"]))
    product, headers = await shop.product(), await shop.shopper()
    faults.add(Fault("stuck", "worker", "error", "capture", times=None))
    try:
        order_id = (await shop.place(headers, product)).json()["orderId"]
        await shop.until(headers, order_id, status="confirmed", needsAttention=True)

        async def pending() -> list[str]:
            rows = [row for row in await open_orders(arena.owner_url) if row["id"] == order_id]
            (entry,) = await stuck_report(arena.settings, rows)
            (workflow,) = entry["workflows"]
            assert (workflow["id"], workflow["status"]) == (f"checkout-{order_id}", "running")
            assert entry["order"]["status"] == "confirmed"
            assert "capture" in entry["order"]["attention"]
            said = io.StringIO()
            print_stuck(Console(file=said, width=1000), [entry])
            waits = [one for one in workflow["pending"] if one["type"] == "capture" and one["attempt"] > 1]
            assert order_id in said.getvalue()
            return [said.getvalue()] if waits and "a fault on purpose" in said.getvalue() else []

        (said,) = await eventually(pending)
        assert "capture" in said
        assert f"checkout-{order_id}" in await open_workflows(arena.settings)
    finally:
        faults.remove()
    await shop.until(headers, order_id, paymentStatus="captured", needsAttention=False)

    async def ended() -> bool:
        return order_id not in {row["id"] for row in await open_orders(arena.owner_url)}

    await eventually(ended)
