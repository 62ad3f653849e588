"""What differs between two runs of a case: (kind, detail) pairs. A kind has no numbers of the case in it, so that cases can be grouped."""

from __future__ import annotations

import re
from collections import Counter

COLUMNS = [
    "stot",
    "dreq",
    "dresp",
    "ereq",
    "econ",
    "eresp",
    "wretr",
    "wredis",
    "hrsp_1xx",
    "hrsp_2xx",
    "hrsp_3xx",
    "hrsp_4xx",
    "hrsp_5xx",
    "hrsp_other",
    "req_tot",
    "cli_abrt",
    "srv_abrt",
    "lbtot",
    "conn_tot",
    "status",
    "intercepted",
    "dcon",
    "dses",
    "scur",
    "qcur",
    "smax",
    "weight",
    "act",
    "bck",
]
REPORTS = re.compile(
    r"AddressSanitizer|runtime error:|haptk: bounds:|Fatal Python error|"
    r"Traceback|internal error|LeakSanitizer|has stopped|SystemError|MemoryError|free\(\)|malloc\(\)|corrupted"
)
# What a crowd's queues decide by the moment.
RACY = {"econ", "wretr", "wredis", "hrsp_2xx", "hrsp_5xx", "lbtot", "stot", "req_tot", "conn_tot", "smax"}
TURNS = re.compile(r"balance (roundrobin|static-rr|leastconn|random|rdp-cookie|hdr\(use)")


class Normal:
    def __init__(self, case):
        self.turns = (
            any("crowd" in one for one in case["sessions"])
            or bool(TURNS.search(case["config"]))
            or bool(re.search("nbthread [24]", case["config"]))
        )
        self.uid = "unique-id-format" in case["config"]

    def text(self, text):
        text = re.sub(r"\b127\.0\.0\.1:\d{4,5}\b", "127.0.0.1:P", text)
        if self.turns:
            text = re.sub(r"\bSRV=[0-9a-f]{16}\b", "SRV=dynamic", text)
            text = re.sub(r"\bck\d\b", "ckN", text)
            text = re.sub(r"\bs\d\b(?=[|~ ;,:]|$)", "sN", text)
        return text

    def cookie(self, line):
        return (
            re.sub(r"(SRV=[^;|]*)\|[A-Za-z0-9+/]{5}(\|A{4,5})?(\|\w[A-Za-z0-9+/]{4})?", r"\1|DATE\2", line)
            if "SRV=" in line
            else line
        )

    def head(self, lines):
        out = []
        for number, line in enumerate(lines):
            if number == 0:
                line = re.sub(r"^HTTP/1\.\d", "HTTP/1.x", line).rstrip()
            name, *rest = line.split(":", 1)
            name = name.lower()
            if number and rest:
                line = f"{name}:{rest[0]}"
            if name == "keep-alive" or line.lower() == "connection: keep-alive":
                continue  # hop by hop
            if name == "x-unique-id" and self.uid:
                line = re.sub(r"[0-9A-Fa-f]+", "h", line)
            if self.uid and number:
                line = re.sub(r"\b[0-9A-F]{6,}[0-9A-F:_-]+\b", "UID", line)
            out.append(self.cookie(self.text(line)))
        return out

    def log(self, line):
        line = re.sub(r"^<(\d+)>\w{3} [ \d]\d \d\d:\d\d:\d\d [\w/.-]+\[\d+\]: ", r"<\1>", line)
        line = re.sub(r"\b127\.0\.0\.1:\d{4,5}\b|\[\d\d/\w{3}/\d{4}[^\]]*\]", "@", line)
        line = (
            re.sub(
                r"(?<= )(-?\d+/){2,4}[-+]?\d+ (\d{3}|-1)?",
                lambda m: (
                    "/".join("-1" if x == "-1" else "+" for x in re.sub(r" .*", "", m[0]).split("/"))
                    + " "
                    + (m[2] or "")
                ),
                line,
                count=1,
            )
            if "L|" not in line
            else line
        )
        clf = re.match(
            r'(<\d+>\S+ - - @ ".*" \d+) \+?\d+ "" "" \d+ \d+ ("[^"]*" "[^"]*" "[^"]*") '
            r"(-?\d+ -?\d+ -?\d+ -?\d+) \+?\d+ (\S+) \d+ \d+ \d+ \d+ (\+?\d+) \d+ \d+ (.*)",
            line,
        )
        if clf:
            line = " ".join([clf[1], clf[2], *("-" if x[0] == "-" else "+" for x in clf[3].split()), *clf.groups()[3:]])
        line = re.sub(
            r"T=([-\d/+]+)", lambda m: "T=" + "/".join("-1" if x == "-1" else "+" for x in m[1].split("/")), line
        )
        if clf:
            return self.text(line)
        if "L|" not in line:  # bytes and open connections are a matter of time and of another unit
            line = re.sub(r"(?<=[ \d+1]) ?\+?\d+ (?=(- - |\S+ \S+ )?[-A-Za-z]{2,4} \d+/)", " B ", line)
            line = re.sub(r"\d+/\d+/\d+/\d+/(\+?\d+) (\d+)/(\d+)", r"C/\1 Q", line)
        if "frontend_name" in line or self.uid:
            line = re.sub(r"\b[0-9A-F]{6,}[0-9A-Fa-f:_.-]*", "UID", line)
        return self.text(line)


def names(lines):
    """Of header lines, for a kind."""
    return sorted(line.split(":")[0] for line in lines)


def responses(mine, theirs, normal, where):
    out = []
    a, b = theirs["answers"], mine["answers"]
    for n in range(max(len(a), len(b))):
        if n >= len(a) or n >= len(b):
            more = (b if n >= len(a) else a)[n]
            who, status = "haptk" if n >= len(a) else "haproxy", " ".join(more["head"][0].split()[:2])
            out.append(
                (
                    f"client: {who} sent one answer more: {status} (haproxy ended {theirs['end']}, haptk {mine['end']})",
                    f"{where} answer {n}: {more}",
                )
            )
            break
        x, y = normal.head(a[n]["head"]), normal.head(b[n]["head"])
        if x[0] == y[0] and any(line.startswith("content-security-policy: ") for line in y):
            continue  # the statistics page is everybody's own
        if x[0] != y[0]:
            out.append((f"client: status line {x[0]!r} became {y[0]!r}", f"{where} answer {n}: {a[n]} / {b[n]}"))
            break
        one, two = Counter(x[1:]), Counter(y[1:])
        if one != two:
            gone, new = one - two, two - one
            out.append(
                (
                    f"client: header lines of {x[0].split()[1]}: haproxy {names(gone)} haptk {names(new)}",
                    f"{where} answer {n} {x[0]}: haproxy {list(gone)} haptk {list(new)}",
                )
            )
        elif x != y:
            out.append(("client: order of header lines", f"{where} answer {n}: {x} / {y}"))
        p, t = a[n]["body"], b[n]["body"]
        one, two = (answer.get("text") for answer in (a[n], b[n]))
        if p != t and "<html" not in f"{one}{two}" and (one is None or normal.text(one) != normal.text(two or "")):
            what = "how it ends " + f"{p[2][:6]}/{t[2][:6]}" if p[2] != t[2] else "bytes"
            out.append((f"client: body: {what}", f"{where} answer {n} {x[0]}: {p} {one!r} / {t} {two!r}"))
    if not out and mine["end"] != theirs["end"]:
        last = a[-1]["head"][0].split()[1:2] if a else ["nothing"]
        out.append((f"client: connection {theirs['end']} became {mine['end']} after {last}", f"{where}: {a[-1:]}"))
    return out


def crowds(mine, theirs, where):
    """Clients at once: everyone gets an answer, and a status that HAProxy gave to one of them or that a full queue gives."""
    one, two = (Counter(answer["head"][0].split()[1] for answer in run["answers"]) for run in (theirs, mine))
    out = []
    if one.total() != two.total():
        out.append(("crowd: number of answers", f"{where}: {dict(one)} / {dict(two)}"))
    if set(two) - set(one) - {"503"}:
        out.append((f"crowd: another status {sorted(set(two) - set(one))}", f"{where}: {dict(one)} / {dict(two)}"))
    if two["503"] > one["503"] + max(2, one.total() // 3):
        out.append(("crowd: many more of 503", f"{where}: {dict(one)} / {dict(two)}"))
    return out


def alone(mine):
    """What is wrong with haptk without a comparison."""
    out = []
    if REPORTS.search(mine.get("stderr", "")):
        text = mine["stderr"]
        at = REPORTS.search(text)
        out.append(("CRASH: " + text[at.start() : at.start() + 120].split("\n")[0], text[:6000]))
    if mine["started"] and not mine["alive"]:
        out.append(("CRASH: haptk is gone", f"{mine['notes']} {mine['stderr'][-3000:]}"))
    if mine["started"] and mine["exit"] != 0 and mine["alive"]:
        out.append((f"CRASH: end of haptk: {mine['exit']}", mine["stderr"][-3000:]))
    if mine["started"]:
        left = {
            n: (x["scur"], x["qcur"])
            for n, x in mine["stat"].items()
            if x.get("scur", "0") not in ("0", "") or x.get("qcur", "0") not in ("0", "")
        }
        if left or not mine["stat"]:
            out.append(("LEAK: sessions stay open after everybody left", str(left)))
        for n, x in enumerate(mine["sessions"]):
            if x["end"].startswith("no connection"):
                out.append(("CRASH: nobody accepts any more", f"session {n}"))
    return out


def compare(case, theirs, mine):
    normal, out = Normal(case), alone(mine)
    if theirs["started"] != mine["started"]:
        who = mine if not mine["started"] else theirs
        lines = who["stderr"].splitlines()
        alert = next(
            (x for x in lines if "warning" not in x and re.search("ALERT|ERROR|error|cfg:", x)), who["stderr"][-200:]
        )
        return [
            *out,
            (
                f"start: {who['program']} refuses: " + re.sub(r"^.*?cfg:?\d*\]?:?|\d+", "", alert)[:150],
                who["stderr"][-3000:],
            ),
        ]
    if not mine["started"]:
        return out
    for n, (a, b) in enumerate(zip(theirs["sessions"], mine["sessions"], strict=False)):
        if "crowd" in case["sessions"][n]:
            out += crowds(b, a, f"session {n}")
        else:
            out += responses(b, a, normal, f"session {n}")
    for plan in sorted(set(theirs["servers"]) | set(mine["servers"])):
        a, b = theirs["servers"].get(plan, []), mine["servers"].get(plan, [])
        if plan == "" or re.search(r"\.c\d", plan):
            continue  # of a crowd only the answers count: who comes first is nobody's business
        if len(a) != len(b):
            out.append(
                (
                    f"server: attempts {len(a)} became {len(b)}",
                    f"plan {plan}: {[x['head'][:1] for x in a]} / {[x['head'][:1] for x in b]}",
                )
            )
            continue
        for x, y in zip(a, b, strict=True):
            if x["server"] != y["server"] and not normal.turns:
                out.append(("server: another server", f"plan {plan}: {x['server']} / {y['server']} {x['head']}"))
            one, two = x["proxy"], y["proxy"]
            if one != two and ("v2" not in one or re.sub(r"\d+", "N", one) != re.sub(r"\d+", "N", two)):
                out.append(("server: PROXY header", f"plan {plan}: {one} / {two}"))
            p, t = normal.head(x["head"]), normal.head(y["head"])
            if p != t:
                one, two = Counter(p), Counter(t)
                gone, new = one - two, two - one
                if gone or new:
                    names = [sorted(z.split(":")[0][:20] for z in each) for each in (gone, new)]
                    out.append(
                        (
                            f"server: head lines: haproxy {names[0]} haptk {names[1]}",
                            f"plan {plan}: haproxy {list(gone)} haptk {list(new)}",
                        )
                    )
                else:
                    out.append(("server: order of header lines", f"plan {plan}: {p} / {t}"))
            if x["body"] != y["body"] and "unread" not in (x["body"][2], y["body"][2]):
                out.append(
                    (
                        f"server: body {x['body'][2]} / {y['body'][2]}",
                        f"plan {plan}: {x['body']} / {y['body']} {x['head'][0]}",
                    )
                )
    one, two = (Counter(normal.log(line) for line in run["logs"]) for run in (theirs, mine))
    for lines in (one, two):  # of a crowd's requests only how many there were
        lines["crowd"] = sum(lines.pop(line) for line in list(lines) if "/crowd" in line)
    gone, new = sorted((one - two).elements()), sorted((two - one).elements())
    gone, new = [x for x in gone if " stopped (cumulated" not in x], [x for x in new if " stopped (cumulated" not in x]
    gone, new = (
        [x for x in gone if " is DOWN" not in x and "Server " not in x and " has no server" not in x],
        [x for x in new if "Server " not in x and " has no server" not in x],
    )
    if len(gone) != len(new):
        out.append(
            (f"log: {'more' if len(new) > len(gone) else 'fewer'} lines than haproxy", f"haproxy {gone}\n haptk {new}")
        )
    elif gone:

        def letters(x):
            return re.findall(r"\|([-A-Za-z]{2,4})\||\s([-A-Za-z]{4})\s", x)[:1]

        states = sorted({f"{letters(a)}>{letters(b)}" for a, b in zip(gone, new, strict=True)})
        out.append((f"log: lines differ {states[:3]}", f"haproxy {gone}\n haptk {new}"))
    crowded = any("crowd" in one for one in case["sessions"])
    if theirs.get("stat"):
        for row in theirs["stat"]:
            if normal.turns and row.split("/")[1] not in ("FRONTEND", "BACKEND"):
                continue
            for column in COLUMNS:
                a, b = theirs["stat"][row].get(column, ""), mine["stat"].get(row, {}).get(column, "")
                if (
                    column == "smax"
                    or (a or "0") == (b or "0")
                    or (crowded and column in RACY and (column[:4] == "hrsp" or "FRONTEND" not in row))
                ):
                    continue
                out.append(
                    (f"stat: {re.sub(r'^[a-z]+[0-9]*/', '', row).rstrip('0123456789')} {column}", f"{row}: {a} / {b}")
                )

    def keys(tables):
        return {
            n: [
                re.sub(r" ?(use|server_id|server_key|server_name)=\S+", "", x)
                if normal.turns
                else re.sub(r" ?(use|server_key)=\S+", "", x)
                for x in rows
            ]
            for n, rows in tables.items()
        }

    if keys(theirs["tables"]) != keys(mine["tables"]):
        out.append(("table: contents", f"{keys(theirs['tables'])} / {keys(mine['tables'])}"))
    return out
