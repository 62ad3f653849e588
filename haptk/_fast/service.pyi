class Request:
    service: int
    frontend: int
    backend: int
    keep: bool
    minor: int
    peer: str
    head: bytes
    body: bytes
    @property
    def abandoned(self) -> bool: ...
    def answer(self, status: int, data: bytes) -> bool: ...
