"""What a rendering is: a text with its place, mode and owner, the command that proves it, and the one that makes it live.

An artefact is pure data. `apply` writes it; `generate` prints it; neither knows what haproxy is. Commands are argument
lists in which `{}` stands for the file (a candidate beside the real one while it is being validated).
"""

from __future__ import annotations

from dataclasses import dataclass

ROOT = "root:root"


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """One file. `path` is absolute for a file of a node and relative for a document that is sent to somebody.

    `secret`: the text is shown to nobody and logged nowhere. `keep`: an existing file is never replaced (a key that the
    other node has too). `local`: the text names paths of the haptk that rendered it. `judged_here`: the validator looks
    at the machine (its interfaces, its programs), so elsewhere its verdict means nothing. `needs`: programs without
    which the file is useless. `validate` and `reload` may be empty.
    """

    path: str
    text: str
    mode: int = 0o644
    owner: str = ROOT
    node: str = ""
    what: str = ""
    secret: bool = False
    keep: bool = False
    needs: tuple[str, ...] = ()
    local: bool = False
    judged_here: bool = False
    validate: tuple[str, ...] = ()
    reload: tuple[str, ...] = ()

    @property
    def on_disk(self) -> bool:
        """Whether it belongs on a machine (and not to an API)."""
        return self.path.startswith("/")


@dataclass(frozen=True)
class Site:
    """What a rendering takes from outside the declaration: a fresh key and the contract scripts of the installed haptk.

    `scripts` maps a contract (heartbeat, keepalived, ocf) to the text of its script, as `haptk eip install` writes it.
    """

    secret: str = ""
    scripts: tuple[tuple[str, str], ...] = ()

    def script(self, contract: str) -> str:
        """The script of a contract; KeyError when the caller has not given it."""
        return dict(self.scripts)[contract]
