"""Which addresses are downloaded from: https, and http on this machine only."""

from __future__ import annotations

import http.client
import re
import urllib.request
from typing import IO, Any
from urllib.parse import urlsplit

from topokd_edge.errors import BadInputError, UsageError

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def check_url(url: str) -> None:
    """Refuse an address that is not https.

    http is for this machine only, where nobody can listen or change the bytes on the way.

    Raises
    ------
    UsageError
        When the address is of another kind, has no host, or carries a password.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
        well_formed = bool(parts.hostname) and re.fullmatch(r"[!-~]+", url) is not None
    except ValueError:
        well_formed = False
    if not well_formed:
        raise UsageError(f"address {url!r}: not a well-formed URL", hint="write it as https://host/path")
    if "@" in parts.netloc:
        raise UsageError("the address carries a user name or password, which would be written to the receipt")
    if parts.scheme != "https" and not is_local(url):
        raise UsageError(f"address {url}: only https is taken", hint="write it as https://host/path")


def is_local(url: str) -> bool:
    """Whether it is http on this machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname in _LOOPBACK


class SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to https; to http only from and to this machine."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Refuse a step that leaves https."""
        if urlsplit(newurl).scheme != "https" and not (is_local(req.full_url) and is_local(newurl)):
            raise BadInputError(
                f"{req.full_url}: the server sends on to {newurl!r}, which is not https: refused",
                hint="give the present https address with --url, if you know it",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
    ) -> Any:
        """Close the answer when its redirect is not followed."""
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except (BadInputError, ValueError):
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302
