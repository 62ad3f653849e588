"""Runs one case through one program: the configuration, the sessions one after the other, then counters and tables."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.combinations.client import play
from tests.combinations.servers import Servers

HAPTK = os.environ.get("HAPTK", str(Path(sys.executable).parent / "haptk"))
COMMANDS = {"haproxy": os.environ.get("HAPROXY", "haproxy"), "haptk": HAPTK + " proxy"}
COPY = Path(__file__).parents[2] / "build" / "sanitized"  # made by scripts/test-sanitized --build
# -P: not the package of the current directory
SANITIZED = f"{sys.executable} -P -m haptk proxy"


def instrumented(reports):
    """The environment of a haptk that writes what its sanitizers say to files that begin with `reports`."""
    names = ("libasan.so", "libubsan.so")
    found = [subprocess.check_output(["gcc", f"-print-file-name={name}"], text=True).strip() for name in names]
    said = f"log_path={reports}:abort_on_error=1"
    return os.environ | {
        "LD_PRELOAD": ":".join(found),
        "PYTHONPATH": str(COPY),
        "PYTHONFAULTHANDLER": "1",
        "PYTHONMALLOC": "malloc",  # Python's own allocator would hide overruns of its objects
        "ASAN_OPTIONS": f"{said}:detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": f"{said}:print_stacktrace=1",
    }


class Logs:
    def __init__(self, port):
        self.lines, self.sock = [], socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.sock.bind(("127.0.0.1", port))
        threading.Thread(target=self.take, daemon=True).start()

    def take(self):
        while True:
            try:
                self.lines.append(self.sock.recv(65536).decode("latin-1"))
            except OSError:
                return


class Rig:
    """Ports base..base+99, used by both programs in turn: nothing else differs between the two runs."""

    def __init__(self, base, storm=0, sanitized=False):
        self.base, self.storm, self.solo = base, storm, sanitized or bool(storm)
        self.dir = Path(tempfile.mkdtemp(prefix="combo-"))
        self.commands, self.env, self.patience_s = COMMANDS, None, 6
        if sanitized:
            self.commands, self.env = COMMANDS | {"haptk": SANITIZED}, instrumented(self.dir / "sanitizer")
            self.patience_s = 20
        # somebody else's port in this hundred: choose another --base
        self.servers = Servers({f"sv{n}": base + 10 + n for n in range(12)})
        self.logs = Logs(base + 30)

    def close(self):
        self.servers.close()
        self.logs.sock.close()

    def file(self, case):
        for name, text in case["files"].items():
            (self.dir / name).write_text(text)
        text = re.sub(
            r"\{(fe|sv|dead|pe)(\d+)\}",
            lambda m: str(self.base + {"fe": 0, "sv": 10, "dead": 40, "pe": 70}[m[1]] + int(m[2])),
            case["config"],
        )
        text = (
            text.replace("{log}", str(self.base + 30))
            .replace("{sock}", str(self.dir / "sock"))
            .replace("{dir}", str(self.dir))
            .replace("{host}", socket.gethostname())
        )
        path = self.dir / "haproxy.cfg"
        path.write_text(text)
        return path

    def ask(self, command):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(str(self.dir / "sock"))
            sock.sendall(command.encode() + b"\n")
            out = b""
            while data := sock.recv(65536):
                out += data
            return out.decode("latin-1")
        return ""

    def check(self, program, case):
        done = subprocess.run(
            [*self.commands[program].split(), "-c", "-f", str(self.file(case))],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=self.env,
        )
        return done.returncode == 0, done.stderr + done.stdout

    def run(self, program, case):
        path = self.file(case)
        (self.dir / "sock").unlink(missing_ok=True)
        self.servers.restart(case["plans"])
        self.logs.lines.clear()
        with (self.dir / f"{program}.err").open("w+b") as err:
            extra = ["-db"] if program == "haproxy" else []
            process = subprocess.Popen(
                [*self.commands[program].split(), *extra, "-f", str(path)],
                stdout=err,
                stderr=err,
                start_new_session=True,
                env=self.env,
            )
            try:
                return self.drive(process, program, case, err)
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()

    def drive(self, process, program, case, err):
        out = {"program": program, "started": False, "sessions": [], "alive": False, "notes": []}
        until = time.monotonic() + 30
        while "Uptime" not in self.ask("show info"):
            if process.poll() is not None or time.monotonic() > until:
                return {**out, "stderr": self.said(err)}
            time.sleep(0.02)
        out["started"] = True
        if self.storm:
            with ThreadPoolExecutor(self.storm) as pool:
                out["sessions"] = list(pool.map(self.one, case["sessions"]))
        for number, session in enumerate([] if self.storm else case["sessions"]):
            out["sessions"].append(self.one(session))
            if process.poll() is not None:
                out["notes"].append(f"ended in session {number} with {process.returncode}")
                break
        time.sleep(0.15)
        for _ in range(25):  # until nothing is open any more
            stat = self.stat()
            if all(row.get("scur", "0") in ("0", "") and row.get("qcur", "0") in ("0", "") for row in stat.values()):
                break
            time.sleep(0.2)
        out["stat"] = stat
        out["tables"] = {
            name: sorted(
                re.sub(r"^0x\w+: |exp=\d+ |shard=\d+ ?", "", x).strip()
                for x in self.ask(f"show table {name}").splitlines()
                if x.startswith("0x")
            )
            for name in re.findall(r"# table: (\w+)", self.ask("show table"))
        }
        out["alive"] = process.poll() is None
        process.send_signal(signal.SIGUSR1)
        try:
            out["exit"] = process.wait(self.patience_s)
        except subprocess.TimeoutExpired:
            out["exit"] = "did not stop"
        out["stderr"] = self.said(err)
        out["logs"] = list(self.logs.lines)
        out["servers"] = {k: list(v) for k, v in self.servers.seen.items()}
        return out

    def said(self, err):
        """What the sanitizers wrote to their files, and the program to its standard error."""
        text = ""
        for report in sorted(self.dir.glob("sanitizer.*")):
            text += report.read_text(errors="replace")
            report.unlink()
        err.seek(0)
        return text + err.read().decode("latin-1")

    def one(self, session):
        if "crowd" in session:
            return self.crowd(session)
        try:
            return play(self.base + session["front"], session)
        except OSError as problem:
            return {"answers": [], "end": f"no connection: {type(problem).__name__}"}

    def crowd(self, session):
        """Several clients at once; who is served first is nobody's business, what each gets is."""
        single = [{**session, "steps": [step]} for step in session["crowd"]]
        with ThreadPoolExecutor(len(single)) as pool:
            found = list(pool.map(lambda one: self.one({k: v for k, v in one.items() if k != "crowd"}), single))
        return {
            "answers": [a for one in found for a in one["answers"]],
            "end": ",".join(sorted({one["end"] for one in found})),
        }

    def stat(self):
        lines = [x for x in self.ask("show stat").splitlines() if x.strip()]
        if not lines:
            return {}
        names = lines[0].lstrip("# ").split(",")
        rows = [dict(zip(names, x.split(","), strict=False)) for x in lines[1:]]
        return {f"{x['pxname']}/{x['svname']}": x for x in rows}
