"""Session ids in cookies, paths and queries, as HAProxy 1.5's `appsession` found them."""

from __future__ import annotations

import pytest

from haptk.core.appsession import request_id, response_id
from haptk.proxy.tables import AppSession

PLAIN = AppSession("JSESSIONID", 8, 60.0)
QUERY = AppSession("JSESSIONID", 8, 60.0, mode="query-string")
PREFIX = AppSession("ASPSESSIONID", 20, 60.0, prefix=True)


@pytest.mark.parametrize(
    ("rule", "cookie", "target", "found"),
    [
        (PLAIN, "a=1; JSESSIONID=abc; b=2", "/", "abc"),
        (PLAIN, "JSESSIONID=abcdefghijkl", "/", "abcdefgh"),
        (PLAIN, 'q="x; JSESSIONID=no"; JSESSIONID=yes', "/", "yes"),
        (PLAIN, "JSESSIONIDX=abc", "/x;JSESSIONID=path?y", "path"),
        (PLAIN, "JSESSIONID=", "/x", None),
        (PLAIN, "a=1", "/x?JSESSIONID=q", None),
        (QUERY, "a=1", "/x?a=b&JSESSIONID=q", "q"),
        (QUERY, "a=1", "/x;JSESSIONID=path", None),
        (PREFIX, "ASPSESSIONIDXYZ=abc", "/", "XYZ=abc"),
        (PREFIX, "SPSESSIONIDXYZ=abc", "/", None),
    ],
)
def test_requests(rule: AppSession, cookie: str, target: str, found: str | None) -> None:
    assert request_id(rule, [("host", "h"), ("cookie", cookie)], target) == found


def test_responses() -> None:
    assert response_id(PLAIN, [("set-cookie", "a=b"), ("set-cookie", "JSESSIONID=abc; Path=/")]) == "abc"
    assert response_id(PLAIN, [("set-cookie", "a=b; JSESSIONID=abc")]) is None
    assert response_id(PREFIX, [("set-cookie", "ASPSESSIONIDA=b; path=/")]) == "A=b"
