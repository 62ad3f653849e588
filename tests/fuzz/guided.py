"""Coverage-guided fuzzing of the compiled data path: libFuzzer with AddressSanitizer and UndefinedBehaviorSanitizer.

    .venv/bin/python tests/fuzz/guided.py build                 # an instrumented copy of haptk under build/guided (clang)
    .venv/bin/python tests/fuzz/guided.py run TARGET --seconds N [--corpus DIR]
    .venv/bin/python tests/fuzz/guided.py replay TARGET FILE... # without instrumentation, in this interpreter

A target is a function of bytes that raises when something is wrong; a sanitizer ends the process by itself. `parsers`
compares the compiled parsers with the reference ones; `peers` and `tables` (targets_state.py) are what is learned;
`stream` sends the bytes through a running worker, as what a
client and a server say, in every cookie mode, with rules of the connection modes, PROXY headers and retries. Small
corpora stand in tests/fuzz/corpus/TARGET.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import targets_state

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "guided"
CORPUS = Path(__file__).parent / "corpus"
COVERAGE = "-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-sanitize=pointer-overflow -fno-omit-frame-pointer -O1 -g"
HANG_S = 10.0


def check(holds: bool, text: str) -> None:
    """Findings end the fuzzer; `assert` is not used because a finding must survive -O."""
    if not holds:
        raise RuntimeError(text)


# -- targets -------------------------------------------------------------------------------------------------------


def parsers() -> Callable[[bytes], None]:
    """The first byte chooses: request head, response head, chunked body, PROXY header."""
    sys.path.insert(0, str(Path(__file__).parent))
    import fuzz_http1

    from haptk._fast import http1, proxyproto
    from haptk.proxy import reference_proxyproto
    from haptk.proxy.reference_http import Bad

    def announced(data: bytes) -> object:
        try:
            found = reference_proxyproto.parse(data)
        except Bad:
            return False
        return None if found is None else (found.size, found.source, found.target)

    def one(data: bytes) -> None:
        kind, rest = data[:1], data[1:]
        if kind == b"q" or kind == b"s":
            found = fuzz_http1.disagreement("request" if kind == b"q" else "response", rest)
            check(found is None, str(found))
            http1.request_head(rest, True)
        elif kind == b"c":
            http1.chunked_body(rest, True)
            body = http1.chunked_body(rest)
            check(not body or http1.chunked_body(body[0]) == (body[0], b""), f"{rest!r} reads differently again")
        elif kind == b"p":
            check(proxyproto.header(rest) == announced(rest), f"PROXY header {rest!r}")

    return one


MODES = (
    "cookie S prefix", "cookie S prefix indirect nocache", "cookie S insert indirect nocache maxidle 30m maxlife 8h",
    "cookie S insert postonly preserve httponly", "cookie S rewrite", "cookie S", "option httpclose\n retry-on all-retryable-errors",
    "option http-server-close\n retry-on 503 empty-response\n balance hdr(X) use_domain_only",
    "balance url_param a\n hash-type consistent\n http-reuse always",
    "cookie S prefix\n capture cookie S len 20\n capture request header Cookie len 40\n capture request header Connection len 20"
    "\n capture response header Connection len 9\n http-request capture req.hdr(host),b64dec,hex len 30"
    "\n http-response capture res.hdr(set-cookie),base64,rtrim(=) id 0\n http-request replace-pathq /(.*)a(.*) /\\2\\1"
    "\n http-request set-header X-Kept %[capture.req.hdr(0)]%[capture.req.uri]%[capture.req.hdr(1),mul(3),mod(7)]",
    "mode tcp",
)  # fmt: skip
SPLIT = b"\xfe\xfe"


class Stage:
    """A worker on unix sockets, one listen section per mode, and one server that says what the input wants it to say."""

    def __init__(self) -> None:
        from haptk.proxy.compile import load_text
        from haptk.proxy.engine import Engine
        from haptk.proxy.listeners import Listeners

        self.place = Path(tempfile.mkdtemp(prefix="haptk-fuzz-"))
        self.words = b""
        self.server = self._listen("server")
        text = "defaults\n mode http\n timeout connect 1s\n timeout client 2s\n timeout server 2s\n retries 1\n option forwardfor\n"
        for number, mode in enumerate(MODES):
            text += f"listen m{number}\n {mode}\n bind unix@{self.place}/m{number} {'accept-proxy' * (number % 2)}\n"
            text += f" server s1 unix@{self.place}/server cookie s1 {'send-proxy-v2' * (number % 3 == 2)}\n"
        tables = load_text(text)
        self.listeners = Listeners()
        self.engine = Engine(tables, self.listeners)
        self.engine.start()
        threading.Thread(target=self._serve, daemon=True).start()

    def _listen(self, name: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(str(self.place / name))
        sock.listen(64)
        return sock

    def _serve(self) -> None:
        while True:
            channel, _ = self.server.accept()
            with channel, contextlib.suppress(OSError):
                channel.settimeout(HANG_S)
                channel.recv(65536)
                channel.sendall(self.words)

    def one(self, data: bytes) -> None:
        """Byte 0 is the mode; the rest is what the client says, SPLIT, what the server says."""
        if not data:
            return
        said, _, self.words = data[1:].partition(SPLIT)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client, contextlib.suppress(ConnectionError):
            client.settimeout(HANG_S)
            client.connect(str(self.place / f"m{data[0] % len(MODES)}"))
            client.sendall(said)
            client.shutdown(socket.SHUT_WR)
            got = b""
            while part := client.recv(65536):
                got += part
            if data[0] % len(MODES) != len(MODES) - 1 and got:
                check(got.startswith(b"HTTP/1.1 "), f"{data!r}: {got[:80]!r}")


def stream() -> Callable[[bytes], None]:
    stage = Stage()
    return stage.one


TARGETS: dict[str, Callable[[], Callable[[bytes], None]]] = {
    "parsers": parsers, "stream": stream, "peers": targets_state.peers, "tables": targets_state.tables,
}  # fmt: skip


# -- building and running ------------------------------------------------------------------------------------------


def clang() -> str:
    found = next((name for name in ("clang", "clang-16", "clang-15", "clang-14") if shutil.which(name)), "")
    if not found:
        sys.exit("guided fuzzing needs clang with its sanitizers: apt-get install clang-14 libclang-rt-14-dev")
    return found


def runtime(name: str) -> Path:
    command = [clang(), f"--print-file-name=libclang_rt.{name}-x86_64"]
    stem = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()).name
    where = subprocess.run([clang(), "--print-runtime-dir"], capture_output=True, text=True, check=True).stdout.strip()
    for ending in (".so", ".a"):
        if (path := Path(where) / (stem + ending)).exists():
            return path
    sys.exit(f"guided fuzzing needs {stem}: apt-get install libclang-rt-14-dev")


def build() -> int:
    """haptk's Python beside extensions compiled by clang with coverage and sanitizers, and libFuzzer as a library."""
    BUILD.mkdir(parents=True, exist_ok=True)
    shutil.copytree(
        ROOT / "haptk", BUILD / "haptk", dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    driver = BUILD / "libfuzzdriver.so"
    archive = str(runtime("fuzzer_no_main"))
    command = [
        clang() + "++",
        "-shared",
        "-fPIC",
        "-o",
        str(driver),
        "-Wl,--whole-archive",
        archive,
        "-Wl,--no-whole-archive",
    ]
    if not shutil.which(command[0]):
        command[0:1] = [clang(), "-lstdc++"]
    subprocess.run([*command, "-lm", "-lpthread", "-lstdc++"], check=True)
    environment = {
        **os.environ, "CC": clang(), "CFLAGS": COVERAGE, "HAPTK_REQUIRE_FAST": "1",
        "LDSHARED": f"{clang()} -shared -fsanitize=address,undefined -shared-libasan",
    }  # fmt: skip
    places = ["--build-lib", str(BUILD), "--build-temp", str(BUILD / "temp")]
    command = [sys.executable, "setup.py", "-q", "build_ext", "-j", str(os.cpu_count() or 1), *places]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def run(target: str, seconds: int, corpus: Path | None) -> int:
    """libFuzzer on one target; 0 when the time is over without a finding."""
    if not (BUILD / "libfuzzdriver.so").exists():
        sys.exit("there is no instrumented build yet: guided.py build")
    if os.environ.get("HAPTK_GUIDED") != "1":
        environment = {
            **os.environ, "HAPTK_GUIDED": "1", "PYTHONMALLOC": "malloc", "PYTHONPATH": f"{BUILD}:{ROOT}",
            # libFuzzer first: AddressSanitizer has empty functions for what it defines
            "LD_PRELOAD": f"{BUILD / 'libfuzzdriver.so'}:{runtime('asan')}",
            "ASAN_OPTIONS": "detect_leaks=0:handle_abort=1:allow_user_segv_handler=0:verify_asan_link_order=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }  # fmt: skip
        os.execve(sys.executable, [sys.executable, *sys.argv], environment)
    from haptk._fast import http1

    check(str(BUILD) in str(http1.__file__), f"{http1.__file__} is not the instrumented build")
    work = Path(tempfile.mkdtemp(prefix=f"haptk-guided-{target}-"))
    seeds = corpus or CORPUS / target
    one = TARGETS[target]()

    def call(data: object, size: int) -> int:
        try:
            one(ctypes.string_at(data, size))  # type: ignore[arg-type]
        except BaseException as error:  # a finding has to stop libFuzzer, which calls us through C
            print(f"FINDING in {target}: {error!r}", file=sys.stderr, flush=True)
            os.abort()
        return 0

    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)(call)
    words = [
        "guided", f"-max_total_time={seconds}", "-max_len=4096", "-timeout=30", "-print_final_stats=1", "-verbosity=1",
        f"-artifact_prefix={work}/", str(work), str(seeds),
    ]  # fmt: skip
    count = ctypes.c_int(len(words))
    items = (ctypes.c_char_p * (len(words) + 1))(*[word.encode() for word in words], None)
    pointer = ctypes.cast(items, ctypes.POINTER(ctypes.c_char_p))
    driver = ctypes.CDLL(str(BUILD / "libfuzzdriver.so"))
    print(f"{target}: {len(list(seeds.glob('*')))} seeds, findings and new inputs go to {work}", flush=True)
    code = int(driver.LLVMFuzzerRunDriver(ctypes.byref(count), ctypes.byref(pointer), callback))
    sys.stdout.flush()
    os._exit(code)  # workers of the stream target still run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("build", "run", "replay"))
    parser.add_argument("target", nargs="?", choices=sorted(TARGETS))
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path)
    chosen = parser.parse_args()
    if chosen.action == "build":
        return build()
    if chosen.target is None:
        parser.error("name a target")
    if chosen.action == "run":
        return run(chosen.target, chosen.seconds, chosen.corpus)
    one = TARGETS[chosen.target]()
    for file in chosen.files or sorted((CORPUS / chosen.target).iterdir()):
        one(file.read_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
