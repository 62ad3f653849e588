"""botocore with less to load: what a process that makes one call and ends would import and register for nothing.

Three parts, each measured in instructions of a cold `haptk eip status` that has to ask the API (`docs/decisions/0006`).
None touches what is sent or how an answer is understood:

1. Two packages are only wanted by name when botocore and urllib3 are imported: the writer of botocore's reference
   documentation (it makes the doc strings of client methods, and brings an HTML parser) and urllib3's support for HTTP/2
   (never used by botocore; it brings `importlib.metadata` and `zipfile`). Empty modules stand in for them meanwhile and
   are taken away again, so that whoever imports the real ones later gets them (client methods have no doc strings then).
2. Of botocore's event handlers four fifths belong to services that are never called here.
3. The garbage collector walks nothing of all that: it lives as long as the process.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from botocore.session import Session

# The services that are called, as botocore's events name them in their second word (some by an older name).
SERVICES = frozenset(
    ("dynamodb", "ec2", "elastic-load-balancing-v2", "elbv2", "route-53", "route53", "sso", "sso-oidc", "sts")
)


@contextlib.contextmanager
def imports() -> Iterator[None]:
    """Import botocore, or make something of it, inside this."""
    with _collector_at_rest(), _stand_ins():
        yield


@contextlib.contextmanager
def _collector_at_rest() -> Iterator[None]:
    if not gc.isenabled():
        yield
        return
    before = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before + 20:
            gc.freeze()
        gc.enable()


class _StandIn(types.ModuleType):
    """A package without content; its real submodules are found in its real directory."""

    def __init__(self, name: str, directory: Path) -> None:
        super().__init__(name)
        self.__path__ = [str(directory)]


class _NoDocStrings(types.ModuleType):
    """A module of doc string classes: whichever is asked for makes no text."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda **_wanted: None


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    import botocore

    site = Path(botocore.__path__[0]).parent
    made: list[types.ModuleType] = []
    # Whoever asks for them by name may have come already; botocore is loaded in several steps, each inside `imports`.
    if "botocore.client" not in sys.modules:
        made += [_StandIn("botocore.docs", site / "botocore" / "docs"), _NoDocStrings("botocore.docs.docstring")]
    if "urllib3.connection" not in sys.modules:
        made.append(_StandIn("urllib3.http2", site / "urllib3" / "http2"))
    for module in made:
        sys.modules.setdefault(module.__name__, module)
    try:
        yield
    finally:
        for module in made:
            if sys.modules.get(module.__name__) is module:
                del sys.modules[module.__name__]


def register_handlers(session: Session) -> None:
    """Give a session made without botocore's own event handlers those that matter for `SERVICES`."""
    from botocore.handlers import BUILTIN_HANDLERS, REGISTER_FIRST, REGISTER_LAST

    emitter = session.get_component("event_emitter")
    register = {None: emitter.register, REGISTER_FIRST: emitter.register_first, REGISTER_LAST: emitter.register_last}
    for event, handler, *order in BUILTIN_HANDLERS:
        kind, _, rest = event.partition(".")
        if kind != "docs" and (not rest or rest.partition(".")[0] in SERVICES):
            register[order[0] if order else None](event, handler)
