"""A request's body that may be compressed by zstd, of which no more is unpacked than may be sent plainly."""

from __future__ import annotations

from starlette.requests import Request

from ...serve.http.bodies import read_body
from ...serve.http.complaints import Refused
from ...serve.http.limits import Limits


async def read_compressed(request: Request, limits: Limits) -> bytes:
    """The body, unpacked; Refused where it is too large either way, is not what it says, or does not come."""
    data = await read_body(request, limits)
    coding = request.headers.get("content-encoding", "identity")
    if coding == "identity":
        return data
    if coding != "zstd":
        raise Refused(415, f"the body is encoded by {coding!r}; zstd is taken, or none.")
    import zstandard

    try:
        with zstandard.ZstdDecompressor().stream_reader(data) as reader:
            unpacked = reader.read(limits.max_body + 1)
    except zstandard.ZstdError as error:
        raise Refused(400, f"the body is not compressed by zstd as it says ({error}).") from None
    if len(unpacked) > limits.max_body:
        raise Refused(413, f"the body has more than {limits.max_body:,} bytes, unpacked (--max-body).")
    return unpacked
