class Timepiece:
    now: int
    def __init__(self) -> None: ...
    def limits(
        self,
        *,
        client: int = 0,
        server: int = 0,
        connect: int = 0,
        request: int = 0,
        keep_alive: int = 0,
        queue: int = 0,
        tunnel: int = 0,
        client_fin: int = 0,
        server_fin: int = 0,
    ) -> None: ...
    def set(self, **fields: int) -> None: ...
    def due(self) -> tuple[int, str]: ...
    def arm(self) -> None: ...
    def run(self, until: int) -> int: ...
