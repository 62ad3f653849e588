"""haproxy.cfg readers under mutated files: whatever the bytes are, the result is tables or a ConfigError, and soon.

    .venv/bin/python tests/fuzz/fuzz_config.py [--seconds N] [--seed N] [--engine random|atheris]

The random engine edits seed files by lines, words and bytes. The atheris engine (group `fuzz`) is guided by coverage
and keeps its corpus in the directory that --corpus names. Prints the seed first; a finding prints the file and ends
with 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from pathlib import Path

from haptk.errors import ConfigError
from haptk.formats.haproxy_cfg import Source, parse
from haptk.proxy.compile import compile_config

LIMIT_S = 5.0  # a file of a few kilobytes that takes longer is a finding
SEEDS = [
    """global
    log stdout format raw local0
    maxconn 100
    stats socket /tmp/x mode 600 level admin
defaults base
    mode http
    timeout client 5s
    option forwardfor except 127.0.0.0/8
defaults from base
    timeout server 5s
frontend f
    bind 127.0.0.1:80-82,[::1]:80 accept-proxy name x
    acl api path_beg -i /api or
    acl n hdr_cnt(x) ge 2
    http-request set-header X "%[src,lower] %ci" if api !n || { hdr(host) -m end .x }
    http-request redirect prefix https://x code 301 unless { src 10.0.0.0/8 }
    use_backend b if api
    default_backend b
backend b
    balance url_param id
    cookie A insert indirect nocache maxidle 5m domain .x.y attr "a b"
    stick-table type string len 32 size 10k expire 30m
    stick match req.cook(A)
    option httpchk GET /x HTTP/1.1\\r\\nHost:\\ www
    http-check expect ! rstatus ^5
    server s 127.0.0.1:80 check inter 5s cookie s weight 3
    server-template t 1-3 127.0.0.1:81
""",
    """.if defined(HOME) && !feature(X)
listen a
    bind fd@3
    mode tcp
    log-format "%{+Q}o %t %[req.hdr(a),regsub(\\"(a|b)\\",c,g)]"
.elif 1
.else
.endif
peers p
    peer a 127.0.0.1:1
userlist u
    user x password y groups a,b
""",
]
PIECES = ["\\", '"', "'", "#", "$", "${", "}", "{", "(", ")", ",", ";", "%[", "]", "%", "\t", " ", "\n", "\0", "é", "if", "unless",
          "99999999999999999999", "-1", "0", "||", "!", "no", "default", "listen", "global", "from", "[*]", "\\x4", "-m", "reg", "("]  # fmt: skip


def mutate(generator: random.Random, text: str) -> str:
    """A few edits of lines, words or characters."""
    for _ in range(generator.randrange(1, 5)):
        kind = generator.randrange(6)
        lines = text.split("\n")
        at = generator.randrange(len(lines))
        words = lines[at].split(" ")
        if kind == 0:
            lines.insert(generator.randrange(len(lines)), lines[at])
        elif kind == 1:
            del lines[at]
        elif kind == 2:
            words.insert(generator.randrange(len(words) + 1), generator.choice(PIECES))
            lines[at] = " ".join(words)
        elif kind == 3 and len(words) > 1:
            del words[generator.randrange(len(words))]
            lines[at] = " ".join(words)
        elif kind == 4:
            other = lines[generator.randrange(len(lines))].split(" ")
            words[generator.randrange(len(words))] = generator.choice(other)
            lines[at] = " ".join(words)
        else:
            place = generator.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:place] + generator.choice(PIECES) + lines[at][place:]
        text = "\n".join(lines) or "listen a\n"
    return text


def finding(text: str) -> str | None:
    """What is wrong with how `text` is read; None when nothing is."""
    began = time.monotonic()
    try:
        compile_config(parse([Source("fuzz.cfg", text)], {"HOME": "/root"}), resolve=lambda _: "127.0.0.1")
    except ConfigError as error:
        if not str(error).startswith(("fuzz.cfg:", "configuration:")):
            return f"an error without a place: {error}"
    except Exception:
        return traceback.format_exc()
    took = time.monotonic() - began
    return f"took {took:.1f} s" if took > LIMIT_S else None


def by_chance(seed: int, seconds: float) -> int:
    """The random engine."""
    generator = random.Random(seed)
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        count += 1
        text = mutate(generator, generator.choice(SEEDS))
        wrong = finding(text)
        if wrong:
            print(f"after {count} files:\n{wrong}\n----\n{text}")
            return 1
    print(f"{count} files, nothing found")
    return 0


def by_coverage(seed: int, seconds: float, corpus: Path) -> int:
    """The atheris engine; it ends the process itself."""
    import atheris

    atheris.instrument_all()
    corpus.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(SEEDS):
        (corpus / f"seed-{number}").write_text(text)

    def one(data: bytes) -> None:
        wrong = finding(data.decode("utf-8", "surrogateescape"))
        if wrong:
            raise AssertionError(wrong)

    options = [
        sys.argv[0],
        f"-max_total_time={int(seconds)}",
        f"-seed={seed & 0x7FFFFFFF or 1}",
        "-max_len=4096",
        f"-artifact_prefix={corpus.parent}/",
        str(corpus),
    ]
    atheris.Setup(options, one)
    atheris.Fuzz()
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--engine", choices=("random", "atheris"), default="random")
    parser.add_argument("--corpus", type=Path, default=Path("build/fuzz/config"))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    if chosen.engine == "atheris":
        return by_coverage(chosen.seed, chosen.seconds, chosen.corpus)
    return by_chance(chosen.seed, chosen.seconds)


if __name__ == "__main__":
    sys.exit(main())
