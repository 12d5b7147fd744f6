"""What we are measured against: Starlette and nothing else, with given bytes and with rows straight from PostgreSQL.

`python -m bench.bare_starlette PORT DATABASE_URL LIST_FILE PRODUCT_FILE`
"""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

COLUMNS = """p.id, p.sku, p.name, p.description, p.category, p.price_amount, p.currency, p.image_url, p.active,
             s.on_hand - s.reserved AS available"""
PAGE = f"""
    SELECT {COLUMNS} FROM catalog.products p JOIN catalog.stock s ON s.product_id = p.id
    WHERE p.active ORDER BY p.name, p.id LIMIT 20
"""
PRODUCT = f"""
    SELECT {COLUMNS} FROM catalog.products p JOIN catalog.stock s ON s.product_id = p.id WHERE p.id = $1
"""


def create_app(database_url: str, listed: bytes, product: bytes) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with asyncpg.create_pool(database_url, min_size=16, max_size=16, statement_cache_size=100) as pool:
            app.state.pool = pool
            yield

    async def static_list(_: Request) -> Response:
        return _json(listed)

    async def static_product(_: Request) -> Response:
        return _json(product)

    async def list_of_rows(request: Request) -> Response:
        rows = await request.app.state.pool.fetch(PAGE)
        answer = {"items": [_view(row) for row in rows], "page": 1, "pageSize": 20, "total": len(rows)}
        return _json(json.dumps(answer).encode())

    async def product_of_row(request: Request) -> Response:
        row = await request.app.state.pool.fetchrow(PRODUCT, int(request.path_params["product_id"]))
        return _json(json.dumps(_view(row)).encode())

    return Starlette(
        routes=[
            Route("/static/list", static_list),
            Route("/static/product", static_product),
            Route("/rows/list", list_of_rows),
            Route("/rows/products/{product_id:int}", product_of_row),
        ],
        lifespan=lifespan,
    )


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _view(row: asyncpg.Record) -> dict[str, Any]:
    return {
        "id": row["id"],
        "sku": row["sku"],
        "name": row["name"],
        "description": row["description"],
        "category": row["category"],
        "price": {"amount": row["price_amount"], "currency": row["currency"]},
        "available": row["available"],
        "imageUrl": row["image_url"],
        "active": row["active"],
    }


def main() -> None:
    port, database_url, listed, product = sys.argv[1:]
    app = create_app(database_url, Path(listed).read_bytes(), Path(product).read_bytes())
    uvicorn.run(app, port=int(port), loop="uvloop", http="httptools", access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
