"""`mercato demo`: a shopper's whole way through the shop, over HTTP, with the events as they arrive."""

import asyncio
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, NoReturn

import httpx
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.api_client import ApiClient, ApiFailure, StreamEvent, describe
from cli.console import console, fail, money
from cli.listener import Listener
from cli.order_lists import DEMO_PASSWORD, DEMO_STAFF, Email, Password
from cli.orders import print_payment, workflow_link
from cli.running import present_settings
from core.settings import Settings

GOOD_CARD = "pm_card_visa"
DECLINED_CARDS = "pm_card_chargeDeclined"
PRODUCTS = 2
QUANTITY = 2
MOST_STOCK = 20  # products with at least so many left
PATIENCE = 60.0  # seconds for an event
SETTLING = {"order.confirmed", "payment.declined", "payment.action_required", "order.rejected", "order.expired"}


def demo(
    url: Annotated[str | None, typer.Option(help="Where the API is; the running platform's if not given.")] = None,
    card: Annotated[str, typer.Option(help=f"A test payment method, e.g. {DECLINED_CARDS}.")] = GOOD_CARD,
    cancel: Annotated[bool, typer.Option("--cancel", help="Change one's mind in the end: refund and restock.")] = False,
    staff_email: Email = DEMO_STAFF,
    staff_password: Password = DEMO_PASSWORD,
) -> None:
    """Walk a shopper through the whole flow, live. Exits with 0 only when everything happened as it should."""
    settings = present_settings()
    tour = Tour(settings, url or settings.public_url, card, (staff_email, staff_password), console())
    try:
        asyncio.run(tour.walk(cancel=cancel))
    except ApiFailure as error:
        raise fail(f"\n{error}") from error


@dataclass
class Tour:
    """One shopper's way. Every step says what it does, and raises ApiFailure when something else happens."""

    settings: Settings
    url: str
    card: str
    staff: tuple[str, str]
    out: Console
    basket: dict[int, int] = field(default_factory=dict)  # product id -> quantity
    names: dict[int, str] = field(default_factory=dict)
    step: int = 0

    async def walk(self, *, cancel: bool = False) -> None:
        self.out.print(f"[bold]Mercato[/], a shopper at {self.url} with the card {self.card}", soft_wrap=True)
        async with ApiClient(self.url) as shopper:
            await self._sign_up(shopper)
            self._say("Listening to my orders, GET /api/orders/events")
            async with Listener(shopper, self._heard) as listener:
                before = await self._choose(shopper)
                await self._fill_cart(shopper)
                key = f"demo-{secrets.token_hex(8)}"
                placed = await self._place(shopper, key)
                order_id = placed["orderId"]
                await self._until_confirmed(shopper, listener, order_id, before)
                await listener.wait_for(order_id, {"payment.captured"}, PATIENCE)
            await self._look_at_stock(shopper, before, "after")
            await self._look_at_payment(order_id)
            await self._look_at_order(shopper, order_id)
            await self._place_again(shopper, key, order_id)
            if cancel:
                await self._change_ones_mind(shopper, order_id)
                await self._look_at_stock(shopper, before, "now, all of it is back")
        self.out.print(f"\n[bold green]Done.[/] mercato orders show {order_id}", soft_wrap=True)
        self.out.print(f"      mercato replay {order_id}", soft_wrap=True)

    async def _sign_up(self, shopper: ApiClient) -> None:
        email, password = f"demo-{secrets.token_hex(6)}@mercato.test", f"demo-{secrets.token_urlsafe(12)}"
        self._say("A new shopper, POST /api/auth/register")
        body = {"email": email, "password": password, "fullName": "Dana Demo"}
        await shopper.get_json("POST", "/api/auth/register", json=body)
        tokens = await shopper.login(email, password)
        self._tell(f"{email} is signed in, user {tokens['userId']}")

    async def _choose(self, shopper: ApiClient) -> dict[int, int]:
        """Pick products at random, so that demos do not all buy the same. Product id -> units available."""
        self._say("Looking around, GET /api/products")
        first = await shopper.get_json("GET", "/api/products", params={"pageSize": 50})
        pages = max(1, first["total"] // 50)
        page = await shopper.get_json(
            "GET", "/api/products", params={"pageSize": 50, "page": 1 + secrets.randbelow(pages)}
        )
        plenty = [product for product in page["items"] if product["available"] >= MOST_STOCK]
        if len(plenty) < PRODUCTS:
            raise ApiFailure("There is nothing to buy here. `mercato seed` fills the catalogue.")
        chosen = secrets.SystemRandom().sample(plenty, PRODUCTS)
        self.basket = {product["id"]: QUANTITY for product in chosen}
        self.names = {product["id"]: product["name"] for product in chosen}
        return await self._look_at_stock(shopper, None, "before")

    async def _fill_cart(self, shopper: ApiClient) -> None:
        self._say("Filling the cart, POST /api/cart/add")
        cart: dict[str, Any] = {}
        for product_id, quantity in self.basket.items():
            body = {"productId": product_id, "quantity": quantity}
            cart = await shopper.get_json("POST", "/api/cart/add", json=body)
        table = Table(box=None, show_header=False)
        for line in cart["lines"]:
            table.add_row(
                f"{line['quantity']} x", escape(line["name"]), money(line["unitPrice"]), money(line["lineTotal"])
            )
        table.add_row("", "[bold]total[/]", "", f"[bold]{money(cart['total'])}[/]")
        self.out.print(table)

    async def _place(self, shopper: ApiClient, key: str) -> dict[str, Any]:
        self._say("Buying, POST /api/orders/place")
        self._tell(f"Idempotency-Key: {key}")
        answer = await self._post_order(shopper, key)
        body = self._answered(answer)
        if answer.status_code not in (201, 202, 402) or "orderId" not in body:
            raise ApiFailure(f"The order was not taken: {describe(answer)}")
        if self.card == GOOD_CARD and answer.status_code == 402:
            raise ApiFailure("The card should have been accepted.")
        if self.card.startswith(DECLINED_CARDS) and answer.status_code == 201:
            raise ApiFailure("The card should have been declined.")
        return body

    async def _until_confirmed(
        self, shopper: ApiClient, listener: Listener, order_id: str, before: dict[int, int]
    ) -> None:
        event = await listener.wait_for(order_id, SETTLING, PATIENCE)
        if event.type == "payment.action_required":
            await self._authenticate(shopper, order_id)
            event = await listener.wait_for(order_id, SETTLING - {"payment.action_required"}, PATIENCE)
        if event.type == "payment.declined":
            await self._pay_with_another_card(shopper, order_id, before)
            event = await listener.wait_for(order_id, SETTLING - {"payment.declined"}, PATIENCE)
        if event.type != "order.confirmed":
            raise ApiFailure(f"The order was not confirmed: {event.type}, {event.data.get('detail') or 'no reason'}")

    async def _pay_with_another_card(self, shopper: ApiClient, order_id: str, before: dict[int, int]) -> None:
        self._say(f"Declined. The order waits, GET /api/orders/{order_id}")
        order = await shopper.get_json("GET", f"/api/orders/{order_id}")
        action = order["actionRequired"]
        if order["status"] != "action_required" or not action or not action["deadline"]:
            raise ApiFailure(f"The order should wait for another card; it is {order['status']}.")
        left = (datetime.fromisoformat(action["deadline"]) - datetime.now(UTC)).total_seconds()
        self._tell(f"{order['status']}: {action['reason']}; another card may come for {left / 60:.0f} more minutes")
        await self._look_at_stock(shopper, before, "while it waits, still reserved")
        self._say("Another card, POST /api/orders/{id}/payment")
        answer = await shopper.call(
            "POST",
            f"/api/orders/{order_id}/payment",
            json={"paymentMethodId": GOOD_CARD},
            headers={"Idempotency-Key": f"demo-{secrets.token_hex(8)}"},
        )
        body = self._answered(answer)
        if answer.status_code not in (201, 202) or body.get("orderId") != order_id:
            raise ApiFailure(f"The second card should have been accepted: {describe(answer)}")

    async def _authenticate(self, shopper: ApiClient, order_id: str) -> None:
        """What a browser does at the bank's page."""
        self._say(f"The bank wants to see the shopper, GET /api/orders/{order_id}")
        action = (await shopper.get_json("GET", f"/api/orders/{order_id}"))["actionRequired"]
        self._tell(action["url"])
        page = httpx.URL(action["url"])
        async with httpx.AsyncClient() as browser:
            answer = await browser.post(page.copy_with(path=f"{page.path}/complete"))
        if answer.status_code != 303:
            raise ApiFailure(f"The bank's page answered {answer.status_code}.")
        self._tell(f"It is her; back to {answer.headers['location'].partition('?')[0]}")

    async def _change_ones_mind(self, shopper: ApiClient, order_id: str) -> None:
        self._say("The shopper changes her mind, POST /api/orders/{id}/cancel")
        headers = {"Idempotency-Key": f"demo-{secrets.token_hex(8)}", "Prefer": "wait=10"}
        answer = await shopper.call("POST", f"/api/orders/{order_id}/cancel", json={}, headers=headers)
        body = self._answered(answer)
        if (body.get("status"), body.get("paymentStatus")) != ("cancelled", "refunded"):
            raise ApiFailure(f"The order should be cancelled and refunded: {describe(answer)}")

    async def _look_at_stock(self, shopper: ApiClient, before: dict[int, int] | None, when: str) -> dict[int, int]:
        """Units available of what is bought; held against `before`: what was bought must be gone, or back."""
        self.out.print(f"  stock {when}:")
        table = Table(box=None, show_header=False)
        found: dict[int, int] = {}
        for product_id, quantity in self.basket.items():
            product = await shopper.get_json("GET", f"/api/products/{product_id}")
            found[product_id] = available = product["available"]
            change = f"{available - before[product_id]:+d}" if before else ""
            table.add_row(" ", escape(self.names[product_id]), f"{available} available", f"[cyan]{change}[/]")
            if before and before[product_id] - available < quantity and "back" not in when:
                raise ApiFailure(f"{quantity} units of product {product_id} should be gone.")
        self.out.print(table)
        return found

    async def _look_at_payment(self, order_id: str) -> None:
        self._say("Staff look at the money, GET /api/payments/{id}")
        async with ApiClient(self.url) as staff:
            await staff.login(*self.staff)
            payment = await staff.get_json("GET", f"/api/payments/{order_id}")
        print_payment(self.out, payment)
        sums = [sum(entry["amount"] for entry in posted["entries"]) for posted in payment["ledger"]]
        if payment["status"] != "captured" or any(sums) or not sums:
            raise ApiFailure(f"The payment should be captured and balanced; it is {payment['status']}.")

    async def _look_at_order(self, shopper: ApiClient, order_id: str) -> None:
        order = await shopper.get_json("GET", f"/api/orders/{order_id}")
        cart = await shopper.get_json("GET", "/api/cart")
        if (order["status"], order["paymentStatus"]) != ("confirmed", "captured"):
            raise ApiFailure(f"The order should be paid; it is {order['status']}, payment {order['paymentStatus']}.")
        self._say(f"Order {order['number']} is {order['status']} and {order['paymentStatus']}; its workflow:")
        self.out.print(f"  {workflow_link(self.settings, f'checkout-{order_id}')}", soft_wrap=True)
        if cart["lines"]:
            self._tell("The cart is being cleared")

    async def _place_again(self, shopper: ApiClient, key: str, order_id: str) -> None:
        self._say("The same request once more, with the same Idempotency-Key")
        answer = await self._post_order(shopper, key)
        body = self._answered(answer)
        if body.get("orderId") != order_id or answer.headers.get("Idempotent-Replayed") != "true":
            raise ApiFailure("The repeat should have been answered with the same order.")
        self._tell("Idempotent-Replayed: true. The same order, nothing bought twice")

    async def _post_order(self, shopper: ApiClient, key: str) -> httpx.Response:
        body, headers = {"paymentMethodId": self.card}, {"Idempotency-Key": key}
        return await shopper.call("POST", "/api/orders/place", json=body, headers=headers)

    # --- telling -----------------------------------------------------------------------------------------------------

    def _say(self, words: str) -> None:
        self.step += 1
        self.out.print(f"\n[bold cyan]{self.step:>2}[/] [bold]{escape(words)}[/]", soft_wrap=True)

    def _tell(self, words: str) -> None:
        self.out.print(f"  {escape(words)}", soft_wrap=True)

    def _heard(self, event: StreamEvent, delay: float) -> None:
        told = event.data.get("declineCode") or event.data["status"]
        words = f"event {event.seq:>2}  {event.type:<20} {told:<18} {delay * 1000:4.0f} ms after it happened"
        self.out.print(f"  [magenta]{escape(words)}[/]")

    def _answered(self, answer: httpx.Response) -> dict[str, Any]:
        milliseconds = answer.elapsed.total_seconds() * 1000
        try:
            body: dict[str, Any] = answer.json()
        except ValueError:
            self._not_ours(answer)
        colour = "green" if answer.is_success else "yellow"
        total = f", {money(body['total'])}" if body.get("total") else ""
        words = f"{body['status']}, payment {body['paymentStatus']}{total}" if answer.is_success else describe(answer)
        self.out.print(f"  [{colour}]{answer.status_code}[/] in {milliseconds:.0f} ms: {escape(words)}", soft_wrap=True)
        if body.get("declineCode"):
            self._tell(f"decline code {body['declineCode']}")
        return body

    def _not_ours(self, answer: httpx.Response) -> NoReturn:
        raise ApiFailure(f"{self.url} does not speak Mercato's language: {answer.status_code}, no JSON")
