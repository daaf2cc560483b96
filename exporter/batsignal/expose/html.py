"""A page as an answer: HTML, zipped for who takes that."""

import gzip

from starlette.requests import Request
from starlette.responses import Response

from batsignal.expose.accept import wants_gzip

GZIP_LEVEL = 5


def html_answer(request: Request, body: bytes, status: int = 200) -> Response:
    """Return a document as what the request takes."""
    headers = {"vary": "Accept-Encoding"}
    if wants_gzip(",".join(request.headers.getlist("accept-encoding"))):
        body, headers["content-encoding"] = gzip.compress(body, GZIP_LEVEL, mtime=0), "gzip"
    return Response(body, status, media_type="text/html", headers=headers)
