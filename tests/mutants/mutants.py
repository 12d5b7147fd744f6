"""The guards of money and stock, each broken on purpose, and the tests that must notice.

A mutant's `old` stands exactly once in its file (tests/mutants/test_mutants.py watches that the list does not rot).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """`guard`: what is broken, in words. `tests`: where at least one test must fail."""

    guard: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


INVENTORY, BOOKS = "tests/services/test_inventory.py", "tests/activities/test_books.py"
VOID, PAY = "tests/services/test_capture_and_void.py", "tests/services/test_payments.py"
REFUNDS, CHALLENGES = "tests/services/test_refunds.py", "tests/services/test_challenges.py"
CHECKOUT, LOST = "tests/workflows/test_checkout.py", "tests/workflows/test_lost_runs.py"
FULFILMENT, HOOKS = "tests/workflows/test_fulfilment.py", "tests/e2e/test_webhooks.py"
ORDERS, RECONCILE = "tests/services/test_orders.py", "tests/activities/test_reconciliation.py"
NOTIFY = "tests/activities/test_notifications.py"

MUTANTS = (
    Mutant(
        "a reservation ends once: the state condition on commit, release and restock",
        "services/inventory.py",
        "WHERE order_id = :order_id AND state = '{before}' AND",
        "WHERE order_id = :order_id AND state <> '{state}' AND",
        (INVENTORY, "tests/services/test_inventory_machine.py"),
    ),
    Mutant(
        "only what is there is reserved: the shortage check",
        "services/inventory.py",
        "WHERE EXISTS (SELECT FROM wanted) AND NOT EXISTS (SELECT FROM short)",
        "WHERE EXISTS (SELECT FROM wanted)",
        (INVENTORY,),
    ),
    Mutant(
        "a release before its reserve leaves a tombstone",
        "services/inventory.py",
        '            if await _first(session, _TOMBSTONE, {"order_id": order_id}):\n                return',
        "            return",
        (INVENTORY,),
    ),
    Mutant(
        "what was sold comes back once: restock asks for a committed reservation",
        "services/inventory.py",
        '_RESTOCK = _end("restock", "committed", "restocked"',
        '_RESTOCK = _end("restock", "active", "restocked"',
        (INVENTORY,),
    ),
    Mutant(
        "the idempotency key on authorize",
        "services/processor.py",
        """                        "return_url": self._return_url.replace("{order_id}", str(order_id)),
                    },
                    {"idempotency_key": key},""",
        """                        "return_url": self._return_url.replace("{order_id}", str(order_id)),
                    },
                    {},""",
        (PAY, CHALLENGES),
    ),
    Mutant(
        "an unknown outcome is looked at before a card is tried again",
        "services/payments.py",
        "if opened.asked and (known := await asked.look(intent_id)) is not None:",
        "if False and (known := await asked.look(intent_id)) is not None:",
        (PAY, CHALLENGES),
    ),
    Mutant(
        "silence of the processor is never a decline",
        "services/payments.py",
        "            return await self._declined(self._attempt, declined.code, declined.charge_id)\n"
        "        except ProcessorUnavailable as error:\n            await self._unknown(error)",
        "            return await self._declined(self._attempt, declined.code, declined.charge_id)\n"
        '        except ProcessorUnavailable:\n            return await self._declined(self._attempt, "silent", None)',
        (PAY,),
    ),
    Mutant(
        "nothing is authorized once a void was asked for",
        "services/payment_statements.py",
        "WHERE order_id = :order_id AND status = 'none' AND void_requested_at IS NULL",
        "WHERE order_id = :order_id AND status = 'none'",
        (VOID,),
    ),
    Mutant(
        "an answer about another amount is not believed",
        "services/intents.py",
        "        good = good and (intent.amount, intent.currency) == (amount.amount, amount.currency)\n",
        "        good = good and bool(amount)\n",
        (PAY, VOID),
    ),
    Mutant(
        "a refund is booked once",
        "services/refunds.py",
        "WHERE order_id = :order_id AND status = 'captured'",
        "WHERE order_id = :order_id",
        (REFUNDS,),
    ),
    Mutant(
        "money that is only held is waited for, not refunded",
        "services/refunds.py",
        "if status in (PaymentStatus.AUTHORIZED, PaymentStatus.UNKNOWN):",
        "if status is PaymentStatus.UNKNOWN:",
        (REFUNDS,),
    ),
    Mutant(
        "a ledger transaction is booked once for each kind",
        "services/ledger.py",
        "ON CONFLICT (key) DO NOTHING RETURNING id",
        "RETURNING id",
        ("tests/services/test_ledger.py", REFUNDS),
    ),
    Mutant(
        "confirm comes before capture",
        "workflows/checkout.py",
        "            self._past_return = True\n            await to_the_end(self._confirm())",
        "            self._past_return = True\n            await self._capture()\n"
        "            await to_the_end(self._confirm())",
        (CHECKOUT,),
    ),
    Mutant(
        "what was authorized is voided when the order is not sold",
        "workflows/checkout.py",
        "        self._will_undo(self._void)\n",
        "",
        (CHECKOUT,),
    ),
    Mutant(
        "the reservation is asked first when a run undoes: it knows whether the order is sold",
        "workflows/checkout.py",
        "for undo in (self._release, self._void, self._close)",
        "for undo in (self._void, self._release, self._close)",
        (CHECKOUT, LOST),
    ),
    Mutant(
        "undo is carried to its end whatever arrives meanwhile",
        "workflows/endings.py",
        "            await asyncio.shield(task)\n        except asyncio.CancelledError:\n            continue",
        "            await task\n        except asyncio.CancelledError:\n            break",
        (CHECKOUT,),
    ),
    Mutant(
        "a step that never gives up tries another round",
        "workflows/steps.py",
        "                if name in self._done_by_hand:",
        "                if True:",
        (CHECKOUT, FULFILMENT),
    ),
    Mutant(
        "undo is shown to staff after five attempts",
        "workflows/options.py",
        "    maximum_attempts=5,\n",
        "    maximum_attempts=50,\n",
        (FULFILMENT,),
    ),
    Mutant(
        "a sold order that is cancelled is put back on the shelf",
        "workflows/fulfilment.py",
        'await self._by_hand("restock", InventoryActivities.restock, ReservationState.RESTOCKED)',
        "pass",
        (FULFILMENT,),
    ),
    Mutant(
        "a webhook's signature is verified",
        "services/processor_events.py",
        "    if not any(_signed(payload, signature, secret.strip())",
        "    if False and not any(_signed(payload, signature, secret.strip())",
        (HOOKS,),
    ),
    Mutant(
        "a delivery that was here before is refused",
        "services/processor_events.py",
        "    WHERE NOT e.signatures && excluded.signatures\n",
        "",
        (HOOKS,),
    ),
    Mutant(
        "an event that repeats what we know wakes nobody",
        "services/processor_events.py",
        "status = ANY (CAST(:news_when AS text[])) AND voided_at IS NULL AS news",
        "true AS news",
        (HOOKS,),
    ),
    Mutant(
        "an event is told once for each key",
        "services/order_changes.py",
        ' AND NOT {_TOLD}""",',
        '""",',
        (ORDERS,),
    ),
    Mutant(
        "a claim is made of the lines of the version that was seen",
        "services/claims.py",
        "        FROM cart JOIN seen USING (id, version), found\n",
        "        FROM cart, found\n",
        ("tests/services/test_carts.py",),
    ),
    Mutant(
        "an order whose checkout was never started is started",
        "activities/reconciliation.py",
        '            return await self._mend(order, "checkout_not_started", self._start, "started")',
        '            return ""',
        (RECONCILE,),
    ),
    Mutant(
        "a break is closed as given back only when the money is back",
        "activities/books.py",
        "                return refund.counts\n",
        "                return True\n",
        ("tests/activities/test_books.py",),
    ),
    Mutant(
        "what is in our books goes back by way of them",
        "activities/books.py",
        "        await records.note_captured(self.payments, order_id, intent.latest_charge)\n",
        "",
        (BOOKS,),
    ),
    Mutant(
        "an answer that a key brings again and again is held against the intent itself",
        "services/intents.py",
        "        answer = await retrieve(processor, intent_id)\n",
        "",
        (PAY, VOID),
    ),
    Mutant(
        "an order ends without a doubt about its payment",
        "services/orders.py",
        "NOTHING_HELD = {PaymentStatus.UNKNOWN: PaymentStatus.VOIDED, ",
        "NOTHING_HELD = {",
        (ORDERS,),
    ),
    Mutant(
        "what is said of a card after the void changes nothing",
        "services/orders.py",
        "ANSWERED = (PaymentStatus.AUTHORIZED, PaymentStatus.VOIDED)",
        "ANSWERED = (PaymentStatus.AUTHORIZED,)",
        (ORDERS,),
    ),
    Mutant(
        "a doubt told late does not hide what the shopper has to do",
        "services/orders.py",
        "        late_beyond=(attempt - 1, True),\n",
        "",
        (ORDERS,),
    ),
    Mutant(
        "a capture told late does not hide the refund",
        "services/orders.py",
        "        late_after=(PaymentStatus.REFUNDED,),\n",
        "",
        (ORDERS,),
    ),
    Mutant(
        "what a lost run sold, and its cancel gave back, is not undone again",
        "workflows/checkout.py",
        "if self._past_return or self._given_back:",
        "if self._past_return:",
        (LOST,),
    ),
    Mutant(
        "nobody is told late that an order is confirmed which is being cancelled",
        "activities/notifications.py",
        "if _was_held_up() and await self._is_cancelled(request.order_id):",
        "if False:",
        (NOTIFY,),
    ),
)
