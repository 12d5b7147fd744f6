"""The catalogue over HTTP: browse and search for everybody, changes for staff."""

import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request, Response
from pydantic import StringConstraints

from api.auth import Open, StaffUser, authenticate_if_any, authenticate_service, require_staff
from api.deps import CatalogSession, Resources, ResourcesDep
from api.etags import render, respond
from api.product_views import (
    PRINTABLE,
    CategoryList,
    CategoryView,
    ListQuery,
    NewProduct,
    PricedQuery,
    ProductChanges,
    ProductList,
    ProductView,
    StockEventPage,
    StockEventView,
    StockLevel,
    SuggestionList,
    SuggestionView,
)
from api.recent import Kept, respond_again
from api.routing import Router
from api.shapes import ResponseModel
from core.cache import BriefCache
from models.catalog import Product
from models.errors import InvalidRequest, NotFound
from models.messages import PricedProduct
from models.types import Money, Service
from services import browsing, catalog, inventory
from services.pictures import product_picture

router = Router(tags=["catalog"])

LIST_SECONDS = 1.0
FOREVER = "public, max-age=31536000, immutable"
PICTURE_HEADERS = {"Cache-Control": FOREVER, "Content-Security-Policy": "default-src 'none'"}

ProductId = Annotated[int, Path(ge=1, le=2**63 - 1)]
Typed = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100, pattern=PRINTABLE)]


@router.get("/api/products", response_model=ProductList, dependencies=[Open])
async def browse(request: Request, resources: ResourcesDep, query: Annotated[ListQuery, Query()]) -> Response:
    """Products for sale, at most a second old. An unknown `category` is 422 `unknown_category`."""

    async def make() -> ProductList:
        async with resources.sessions[Service.CATALOG]() as session:
            page = await browsing.browse(session, query.as_browse())
        items = [ProductView.of(product) for product in page.items]
        return ProductList(items=items, page=query.page, page_size=query.page_size, total=page.total)

    return respond_again(request, await _briefly(resources, ("list", query.as_browse()), make))


@router.get("/api/products/suggest", response_model=SuggestionList, dependencies=[Open])
async def suggest(request: Request, resources: ResourcesDep, q: Typed) -> Response:
    """Up to eight products for what has been typed into the search box so far."""

    async def make() -> SuggestionList:
        async with resources.sessions[Service.CATALOG]() as session:
            found = await browsing.suggest(session, q)
        return SuggestionList(items=[SuggestionView.of(suggestion) for suggestion in found])

    return respond_again(request, await _briefly(resources, ("suggest", q), make))


@router.get("/api/products/stock-events", dependencies=[Depends(require_staff)])
async def stock_events(
    session: CatalogSession,
    cursor: Annotated[int | None, Query(ge=1, le=2**63 - 1, description="`nextCursor` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> StockEventPage:
    """Staff: when products ran low, were sold out, or were there again; newest first."""
    found = await inventory.stock_events(session, cursor, limit + 1)
    following = found[limit - 1].id if len(found) > limit else None
    return StockEventPage(items=[StockEventView(**asdict(event)) for event in found[:limit]], next_cursor=following)


@router.get("/api/categories", response_model=CategoryList, dependencies=[Open])
async def categories(request: Request, resources: ResourcesDep) -> Response:
    """Every category, in the shop's order."""

    async def make() -> CategoryList:
        async with resources.sessions[Service.CATALOG]() as session:
            found = await catalog.categories(session)
        return CategoryList(items=[CategoryView.of(category) for category in found])

    return respond_again(request, await _briefly(resources, ("categories",), make))


@router.get("/api/products/{product_id}", response_model=ProductView, dependencies=[Open])
async def get(request: Request, resources: ResourcesDep, product_id: ProductId) -> Response:
    """One product, exact. Those not for sale are shown to staff only."""
    async with resources.sessions[Service.CATALOG]() as session:
        product = await catalog.get(session, product_id, also_inactive=True)
    if not product.active:
        user = await authenticate_if_any(request)
        if user is None or not user.role.is_staff:
            raise NotFound("There is no such product.")
    return respond(request, render(ProductView.of(product)))


@router.get(
    "/api/products/{product_id}/image.svg",
    dependencies=[Open],
    response_class=Response,
    responses={200: {"content": {"image/svg+xml": {}}}},
)
async def picture(session: CatalogSession, product_id: ProductId) -> Response:
    """The picture made for a product, also for one no longer for sale: old orders show it."""
    product = await catalog.get(session, product_id, also_inactive=True)
    drawn = product_picture(product.id, product.name, product.category)
    return Response(drawn, media_type="image/svg+xml", headers=PICTURE_HEADERS)


async def _existing_product(session: CatalogSession, product_id: ProductId) -> int:
    """404 before anybody looks at the body."""
    return (await catalog.get(session, product_id, also_inactive=True)).id


ExistingProduct = Annotated[int, Depends(_existing_product)]


@router.post("/api/products", status_code=201, dependencies=[Depends(require_staff)])
async def create(session: CatalogSession, resources: ResourcesDep, body: NewProduct, response: Response) -> ProductView:
    """Add a product, with a stock of 0. 422 `unknown_category`, 409 `sku_taken`."""
    _require_own_currency(resources, body.price)
    product = Product(
        sku=body.sku,
        name=body.name,
        description=body.description,
        category=body.category,
        price_amount=body.price.amount,
        currency=body.price.currency,
        image_url=body.image_url,
    )
    created = await catalog.create(session, product)
    response.headers["Location"] = f"/api/products/{created.id}"
    return ProductView.of(created)


@router.patch("/api/products/{product_id}", dependencies=[Depends(require_staff)])
async def change(
    product_id: ExistingProduct,
    session: CatalogSession,
    resources: ResourcesDep,
    body: ProductChanges,
) -> ProductView:
    """Change what is sent. Orders under way keep the price they were placed with."""
    changes = body.model_dump(exclude_unset=True, exclude={"price"})
    if "price" in body.model_fields_set:
        _require_own_currency(resources, body.price)
        changes |= {"price_amount": body.price.amount, "currency": body.price.currency}
    return ProductView.of(await catalog.update(session, product_id, changes))


@router.put("/api/products/{product_id}/stock")
async def set_stock(
    staff: StaffUser, product_id: ExistingProduct, session: CatalogSession, body: StockLevel
) -> ProductView:
    """Set what is on the shelf; the ledger keeps who did. 409 `stock_reserved` if orders hold more than that."""
    await inventory.set_on_hand(
        session, product_id, body.on_hand, actor=str(staff.user_id), reason=body.reason, low_at=body.low_at
    )
    return ProductView.of(await catalog.get(session, product_id, also_inactive=True))


@router.post("/internal/catalog/priced", include_in_schema=False, dependencies=[Depends(authenticate_service)])
async def priced(session: CatalogSession, body: PricedQuery) -> list[PricedProduct]:
    """For the other services; unknown ids are left out."""
    return list((await catalog.priced(session, body.product_ids)).values())


async def _briefly(
    resources: Resources, key: tuple[object, ...], make: Callable[[], Coroutine[Any, Any, ResponseModel]]
) -> Kept:
    """What `make` answers, rendered, from the last second's answer to the same question if there is one."""

    async def rendered() -> Kept:
        until = time.monotonic() + LIST_SECONDS  # from before the database is asked
        return Kept(render(await make()), until)

    cache: BriefCache[Kept] = resources.extra.setdefault("catalog_lists", BriefCache(LIST_SECONDS))
    return await cache.get(key, rendered)


def _require_own_currency(resources: Resources, price: Money) -> None:
    if price.currency != resources.settings.currency:
        raise InvalidRequest(f"Prices are in {resources.settings.currency}.", code="unsupported_currency")
