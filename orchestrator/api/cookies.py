"""The page's cookie, and how a request that comes with it proves to be the page's own.

SameSite=Strict keeps it from requests of other sites. What changes something must also name
the session's CSRF value in a header and come from our own origin, which a page of another
site can neither know nor claim (OWASP CSRF Prevention Cheat Sheet; Fetch Metadata, W3C).
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from fastapi import Request, Response

from orchestrator.errors import Forbidden
from orchestrator.services.access import SESSION_LIFE, csrf_of

CSRF_HEADER = "x-argosy-csrf"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def name(*, secure: bool) -> str:
    """The cookie's name. Browsers take one of ``__Host-`` only from this very host, by TLS."""
    return "__Host-argosy" if secure else "argosy"


def read(request: Request, *, secure: bool) -> str | None:
    """The cookie of a request."""
    return request.cookies.get(name(secure=secure)) or None


def csrf_in(request: Request, *, secure: bool) -> str | None:
    """The CSRF value of the session that a request came with."""
    cookie = read(request, secure=secure)
    return csrf_of(cookie) if cookie else None


def write(response: Response, value: str, *, secure: bool) -> None:
    """Hand the cookie over."""
    response.set_cookie(
        name(secure=secure),
        value,
        max_age=int(SESSION_LIFE.total_seconds()),
        path="/",
        secure=secure,
        httponly=True,
        samesite="strict",
    )


def remove(response: Response, *, secure: bool) -> None:
    """Have the browser forget the cookie."""
    response.delete_cookie(
        name(secure=secure), path="/", secure=secure, httponly=True, samesite="strict"
    )


def check_own(request: Request, cookie: str, public_url: str) -> None:
    """See that a request with the cookie is the page's own, if it may change something.

    Args:
        request: the request.
        cookie: the session's.
        public_url: how the page is reached where that differs from how the request came.

    Raises:
        Forbidden: it lacks the CSRF value, or is not of our origin.
    """
    if request.method in SAFE_METHODS:
        return
    given = request.headers.get(CSRF_HEADER, "")
    if not hmac.compare_digest(given.encode(), csrf_of(cookie).encode()):
        msg = "a change by cookie needs the session's X-Argosy-CSRF"
        raise Forbidden(msg, hint="GET /v1/whoami answers it; a program uses a token instead")
    check_origin(request, public_url, must_say=True)


def check_origin(request: Request, public_url: str, *, must_say: bool) -> None:
    """See that a request comes from a page of ours.

    must_say: refuse those that do not say where they come from, as programs do not.

    Raises:
        Forbidden: it comes from elsewhere.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        own = site == "same-origin"
    elif origin is not None:
        own = origin in {_origin(str(request.base_url)), _origin(public_url)}
    else:
        own = not must_say
    if not own:
        msg = "this request does not come from a page of this platform"
        raise Forbidden(msg)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
