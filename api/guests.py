"""The cookie that a guest's cart is known by. The carts set and read it, and a login hands its cart over."""

from uuid import UUID

from fastapi import Request, Response
from loguru import logger

from api.deps import Resources
from models.errors import Unavailable

COOKIE = "mercato_guest"
PATH = "/api"
SECONDS = 30 * 24 * 3600


def guest_token(request: Request) -> str | None:
    return request.cookies.get(COOKIE) or None


def keep_guest(resources: Resources, response: Response, token: str) -> None:
    secure = resources.settings.public_url.startswith("https://")
    response.set_cookie(COOKIE, token, max_age=SECONDS, path=PATH, secure=secure, httponly=True, samesite="lax")


def forget_guest(response: Response) -> None:
    response.delete_cookie(COOKIE, path=PATH)


async def hand_over_cart(request: Request, resources: Resources, response: Response, customer_id: UUID) -> None:
    """Merge the guest's cart into that of the customer who has just signed in.

    Without the carts service the cookie stays, and the next look at the cart merges.
    """
    token = guest_token(request)
    if token is None:
        return
    try:
        await resources.carts.merge(token, customer_id)
    except Unavailable as error:
        logger.warning("A guest's cart is not merged yet: {}", error)
    else:
        forget_guest(response)
