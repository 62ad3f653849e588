"""What a cluster manager asks of the agent: the action, the addresses and the options, out of its arguments and environment.

Imported by `quick.py`: nothing that costs time may be imported. All parsing of contracts is here, so that the quick and
the whole answer cannot understand a question differently.
"""

from __future__ import annotations

import os

from haptk.io import clock

OPTIONS = (
    "interface",
    "private-ip",
    "region",
    "profile",
    "role-arn",
    "endpoint-url",
    "release",
    "unknown",
    "instance",
    "keep",
)
ENV_FILE = "/etc/haptk/eip.env"
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
ACTIONS = {
    "ocf": ("start", "stop", "monitor", "validate-all"),
    "heartbeat": ("start", "stop", "status"),
    "lsb": ("start", "stop", "restart", "force-reload", "status"),
    "keepalived": ("check", "notify", "fifo"),
}
STATES = {
    "MASTER": "MASTER",
    "MASTER_RX_LOWER_PRI": "MASTER",
    "BACKUP": "BACKUP",
    "FAULT": "FAULT",
    "STOP": "STOP",
    "DELETED": "DELETED",
}


class Refused(Exception):
    """The question means nothing; the text says what is accepted."""


class Request:
    """One question. `state` and `name` are keepalived's, `fifo` the path of its FIFO.

    `began` is when it was asked (monotonic seconds), `silent` that the metadata service was asked and did not answer.
    """

    def __init__(self, contract: str, action: str) -> None:
        self.contract = contract
        self.action = action
        self.addresses: list[str] = []
        self.options: dict[str, str] = {}
        self.state = ""
        self.name = ""
        self.fifo = ""
        self.began = clock.monotonic()
        self.silent = False

    def take(self, word: str) -> None:
        """One argument: an option `name=value`, an interface, or an address."""
        name, equals, value = word.partition("=")
        if word.startswith("eni-"):
            self.options["interface"] = word
        elif equals and name in OPTIONS:
            self.options[name] = value
        elif equals and not word.startswith("tag:"):
            raise Refused(f"{name!r} is not an option: {', '.join(OPTIONS)} are accepted")
        elif word:
            self.addresses.append(word)


def parse(contract: str, arguments: list[str], env: os._Environ[str] | dict[str, str]) -> Request:
    """The request of these arguments; raises Refused."""
    if contract == "ocf":
        return _ocf(arguments, env)
    if contract == "heartbeat":
        request = Request(contract, arguments[-1] if arguments else "")
        for word in arguments[:-1]:
            request.take(word)
        return request
    if contract == "lsb":
        request = Request(contract, arguments[0] if len(arguments) == 1 else "")
        for word in env.get("HAPTK_EIP", "").split():
            request.take(word)
        return request
    if contract == "keepalived":
        return _keepalived(arguments)
    raise Refused(f"{contract!r} is not a contract: {', '.join(ACTIONS)} are accepted")


def _ocf(arguments: list[str], env: os._Environ[str] | dict[str, str]) -> Request:
    request = Request("ocf", arguments[0] if len(arguments) == 1 else "")
    request.addresses = env.get("OCF_RESKEY_address", "").replace(",", " ").split()
    for option in OPTIONS:
        value = env.get("OCF_RESKEY_" + option.replace("-", "_"), "")
        if value:
            request.options[option] = value
    return request


def _keepalived(arguments: list[str]) -> Request:
    action = arguments[0] if arguments else ""
    request = Request("keepalived", action)
    rest = arguments[1:]
    if action == "fifo" and rest:
        request.fifo = rest.pop()
    elif action == "notify":
        rest = _notify(request, rest)
    for word in rest:
        request.take(word)
    return request


def _notify(request: Request, words: list[str]) -> list[str]:
    """Take keepalived's words from the end, where `notify` appends them; `notify_master ...` has only our own last one."""
    if len(words) >= 4 and words[-4] in ("INSTANCE", "GROUP") and words[-2] in STATES:
        request.name, request.state = words[-3], STATES[words[-2]]
        return words[:-4]
    if words and words[-1].upper() in STATES:
        request.state = STATES[words[-1].upper()]
        return words[:-1]
    raise Refused(
        "no state: notify appends INSTANCE|GROUP NAME STATE PRIORITY, notify_master needs `master` at its end"
    )


def settings_of(path: str) -> dict[str, str]:
    """The lines KEY=VALUE of the environment file whose key starts with AWS_ or HAPTK_, or names a proxy; no shell ever
    reads it.

    A file that another user could have written is not believed; a missing one is empty.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        found = os.fstat(handle)
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
            return {}
        text = os.read(handle, 65536).decode("utf-8", "replace")
    finally:
        os.close(handle)
    settings = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and (key.startswith(("AWS_", "HAPTK_")) or key.upper() in PROXIES) and key.isidentifier():
            settings[key] = value.strip().strip("\"'")
    return settings
