"""Which words HAProxy 2.6 knows and haptk does not, so that an error can say so (`haproxy -dKcfg` lists them)."""

from __future__ import annotations

from haptk.formats.haproxy_cfg import globals as global_table
from haptk.formats.haproxy_cfg.model import names

PROXY_WORDS = names(
    "bind-process compression dispatch email-alert "
    "errorfiles external-check filter hash-balance-factor "
    "http-after-response http-error http-send-name-header persist rate-limit "
    "tcp-request tcp-response transparent use-fcgi-app use-server"
)
GLOBAL_WORDS = global_table.UNSUPPORTED | names("setenv presetenv resetenv unsetenv")
PEERS_WORDS = names("default-bind default-server log shards")
RING_WORDS = names("backing-file server timeout")
SECTIONS = names("cache fcgi-app http-errors mailers program crt-store")


def haproxy_knows(kind: str, word: str) -> bool:
    """True when HAProxy 2.6 accepts `word` in a section of this kind."""
    if kind == "global":
        return word in GLOBAL_WORDS
    if kind == "peers":
        return word in PEERS_WORDS
    if kind == "resolvers":
        return False
    if kind == "ring":
        return word in RING_WORDS
    return word in PROXY_WORDS
