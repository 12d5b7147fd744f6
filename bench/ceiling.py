"""The ceiling: an order as one request and one transaction. `python -m bench.ceiling PORT`.

No account, no cart, no payment, no workflow, nothing to repeat: what FastAPI and PostgreSQL could do at most on this
machine. Not a rival; it tells how much there is to lose.
"""

import os
import sys
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import uvicorn
import uvloop
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

SCHEMA = """
    CREATE SCHEMA IF NOT EXISTS ceiling;
    CREATE TABLE IF NOT EXISTS ceiling.stock (product_id bigint PRIMARY KEY, on_hand integer NOT NULL);
    CREATE TABLE IF NOT EXISTS ceiling.orders (id uuid PRIMARY KEY, total bigint NOT NULL);
    CREATE TABLE IF NOT EXISTS ceiling.lines (
        order_id uuid, product_id bigint, quantity integer NOT NULL, PRIMARY KEY (order_id, product_id)
    );
    CREATE TABLE IF NOT EXISTS ceiling.payments (order_id uuid PRIMARY KEY, amount bigint NOT NULL);
    INSERT INTO ceiling.stock SELECT id, 1000000 FROM generate_series(1, 1000) id ON CONFLICT DO NOTHING;
"""


class Line(BaseModel):
    product_id: int
    quantity: int


class PlaceOrder(BaseModel):
    lines: list[Line]


@asynccontextmanager
async def lifespan(app: FastAPI) -> Any:
    app.state.pool = await asyncpg.create_pool(os.environ["MERCATO_DATABASE_URL"], min_size=4, max_size=16)
    await app.state.pool.execute(SCHEMA)
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ready"}


@app.post("/orders", status_code=201)
async def place(body: PlaceOrder) -> dict[str, str]:
    """Take the stock, write order, lines and payment: all or nothing."""
    order_id = uuid4()
    products = sorted((line.product_id, line.quantity) for line in body.lines)
    async with app.state.pool.acquire() as connection, connection.transaction():
        taken = await connection.fetch(
            """
            UPDATE ceiling.stock s SET on_hand = on_hand - w.quantity
            FROM unnest($1::bigint[], $2::integer[]) AS w (product_id, quantity)
            WHERE s.product_id = w.product_id AND s.on_hand >= w.quantity RETURNING s.product_id
            """,
            [product for product, _ in products],
            [quantity for _, quantity in products],
        )
        if len(taken) != len(products):
            raise HTTPException(409, "out of stock")
        await connection.execute("INSERT INTO ceiling.orders VALUES ($1, $2)", order_id, 2500)
        rows = [(order_id, product, quantity) for product, quantity in products]
        await connection.executemany("INSERT INTO ceiling.lines VALUES ($1, $2, $3)", rows)
        await connection.execute("INSERT INTO ceiling.payments VALUES ($1, $2)", order_id, 2500)
    return {"id": str(order_id)}


if __name__ == "__main__":
    config = uvicorn.Config(app, host="127.0.0.1", port=int(sys.argv[1]), log_config=None, access_log=False)
    uvloop.run(uvicorn.Server(config).serve())
