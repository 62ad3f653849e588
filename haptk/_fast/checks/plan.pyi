from collections.abc import Sequence
from typing import Any

CODES: tuple[str, ...]

class Steps:
    count: int
    def __init__(self, kind: str, steps: Sequence[Any]) -> None: ...
