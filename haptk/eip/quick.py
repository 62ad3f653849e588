"""The first milliseconds of every poll: answer "ours" from the metadata service, or hand the question on.

    python -I -S quick.py SITE CONTRACT ARGUMENT...

This is what the installed contract files run. It imports nothing but os and a bare socket, asks the metadata service
once with the cached token, and ends the process when the answer is "yours" and nothing that is known contradicts it.
Every other case (a negative, a doubt, a start, a stop) is the whole agent's: then `SITE`, the directory of haptk's
dependencies, joins the path and the same process goes on in `contracts.runner`.

Nothing is decided here that `core.vip.judge` decides otherwise; a test runs both over the same cases.
"""

from __future__ import annotations

import os
import sys

HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120


def held(address: str, interface: str | None, private_ip: str | None) -> bool | None:
    """True when metadata says that this node has the address and the last known state does not contradict it.

    None when the metadata service was asked and did not answer.
    """
    from haptk.aws import imds
    from haptk.eip.memory import Memory

    endpoint = imds.endpoint_of(os.environ)
    if endpoint is None:
        return False
    directory = imds.run_dir(os.environ)
    memory = Memory(directory, endpoint, interface, private_ip)
    node, last = memory.node(), memory.last(address)
    public_ip = address
    if address.startswith("eipalloc-"):
        known = memory.elastic(address)
        public_ip = known[0] if known else ""
    if node is None or not public_ip or (last is not None and last[0] != "ours"):
        return False
    try:
        private = imds.Imds(endpoint, directory).associated(node[0], public_ip)
    except imds.ImdsSilent:
        return None
    except imds.ImdsError:
        return False
    if not private or (private_ip and private_ip not in private):
        return False
    memory.remember_last(address, "ours")
    return True


def _is_elastic(address: str) -> bool:
    parts = address.split(".")
    return address.startswith("eipalloc-") or (len(parts) == 4 and all(part.isdigit() for part in parts))


def main(argv: list[str]) -> int:
    """Answer the contract's question; returns the exit code."""
    site, contract, arguments = argv[1], argv[2], argv[3:]
    sys.path.insert(0, HOME)
    from haptk.eip.contracts import request as requests

    settings = requests.settings_of(os.environ.get("HAPTK_EIP_ENV", requests.ENV_FILE))
    for key, value in settings.items():
        os.environ.setdefault(key, value)
    try:
        request = requests.parse(contract, arguments, os.environ)
    except requests.Refused as error:
        print(error, file=sys.stderr)
        return 2
    if request.action in ("status", "monitor", "check") and len(request.addresses) == 1:
        address = request.addresses[0]
        options = request.options
        found = _is_elastic(address) and held(address, options.get("interface"), options.get("private-ip"))
        request.silent = found is None
        if found:
            if contract == "heartbeat":
                print("running")
            elif contract != "ocf":
                print(f"{address}: ours (says metadata)")
            return 0
    if site not in sys.path:
        sys.path.append(site)
    from haptk.eip.contracts.runner import run

    return run(request)


if __name__ == "__main__":
    code = main(sys.argv)
    from haptk.io import leave

    # A cluster manager goes by the code: a disk that is full behind its log must not turn a start into a failure.
    leave.at_once(code, stands=True)
