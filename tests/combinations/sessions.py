"""Random sessions of one client, and what the servers answer to each request. Plain data (JSON): strings are latin-1."""

from __future__ import annotations

PATHS = [
    "/",
    "/a",
    "/a/b/c",
    "/b",
    "/c/x.css",
    "/a/img/y",
    "/B/Upper",
    "/mon",
    "/stats",
    "/check",
    "/x?q=v1",
    "/a?q=v2&z=1",
    "/b?q=%20x",
    "/c;S=abc?q=v1",
    "/" + "p" * 300,
    "http://www.example.com/abs?q=1",
]
METHODS = ["GET"] * 9 + ["POST"] * 5 + ["PUT"] * 2 + ["HEAD"] * 2 + ["DELETE", "OPTIONS", "PATCH", "FOO"]
COOKIES = [
    "SRV=ck0",
    "SRV=ck1",
    "SRV=ck1; a=b",
    "a=b; SRV=ck0",
    "SRV=bad",
    "SRV=ck0~abc",
    "SRV=ck1~s123; S=abc",
    "S=abc",
    "S=abc; SRV=",
    "SRV=ck0; SRV=ck1",
    'SRV="ck0"',
    "SRV",
    "; ;SRV=ck0;",
    "SRV = ck1",
    "SRV=ck0|AAAA|BBBB",
    "S=" + "k" * 70,
]
XA = ["foo", "foo-bar", "v1", "", "a,b,c", "bar+foo", "FOO"]
SIZES = [0, 0, 1, 5, 100, 1000, 3000, 5000, 14000, 16383, 16384, 16385, 40000, 131072, 400000]


class CALM:
    on = asked = False


def chop(r, text, quiet=0.55):
    """Steps that send `text`, cut at random places."""
    if r.random() < quiet or len(text) < 2:
        return [["send", text]]
    cuts = sorted({r.randrange(1, len(text)) for _ in range(r.choice([1, 1, 2, 5]))})
    steps, last = [], 0
    for cut in [*cuts, len(text)]:
        steps += [["send", text[last:cut]], ["pause", r.choice([2, 5, 15, 40])]]
        last = cut
    return steps[:-1]


def body_steps(r, size, chunked):
    if not chunked:
        if size == 0:
            return []
        if size > 2000 and r.random() < 0.5:
            tail = r.randrange(1, size)
            return [["fill", size - tail], ["pause", r.choice([1, 10, 40])], ["fill", tail]]
        return [["fill", size]]
    steps, left = [], size
    while left:
        n = left if r.random() < 0.3 else r.randrange(1, left + 1)
        steps += [["send", f"{n:x}" + (";ext=1" if r.random() < 0.1 else "") + "\r\n"], ["fill", n], ["send", "\r\n"]]
        left -= n
        if r.random() < 0.1:
            steps.append(["pause", 5])
        if len(steps) > 60:
            steps += [["send", f"{left:x}\r\n"], ["fill", left], ["send", "\r\n"]] if left else []
            break
    return [*steps, ["send", "0\r\n" + ("X-Trailer: t\r\n" if r.random() < 0.1 else "") + "\r\n"]]


def merge(steps):
    """Neighbouring pieces leave in one write."""
    return steps


def request(r, plan, http10, last):
    method = r.choice(METHODS)
    head = [f"{method} {r.choice(PATHS)} HTTP/1.{0 if http10 else 1}"]
    if not (http10 and r.random() < 0.5):
        head.append("Host: " + r.choice(["www.example.com", "a", "Example.com:80", "b.example.com"]))
    head.append(f"X-Plan: {plan}")
    if r.random() < 0.5:
        head.append("Cookie: " + r.choice(COOKIES))
    if r.random() < 0.1:
        head.append("Cookie: " + r.choice(COOKIES))
    for _ in range(r.choice([0, 1, 1, 2, 3])):
        head.append("X-A: " + r.choice(XA))
    if r.random() < 0.1:
        head.append("X-N: " + r.choice(["1", "77", "4294967296", "-1", "z"]))
    if r.random() < 0.15:
        head.append("X-Forwarded-For: " + r.choice(["10.1.2.3", "1.2.3.4, 10.0.0.1", "bogus"]))
    if r.random() < 0.12:
        head.append(
            "X-Long: "
            + "l"
            * r.choice(
                [10, 200, 1000]
                if CALM.on
                else [10, 200, 1000, 2800, 3000, 4000, 7000, 8100, 14000, 15200, 15900, 16200, 17000, 60000]
            )
        )
    if r.random() < 0.05 and not CALM.on:
        head += [f"X-M{n}: v" for n in range(r.choice([20, 60, 97, 110]))]
    if r.random() < 0.12 or (last and r.random() < 0.4):
        head.append("Connection: " + r.choice(["close", "close", "keep-alive", "x-a"]))
    elif http10 and r.random() < 0.6:
        head.append("Connection: keep-alive")
    if r.random() < 0.03 and not CALM.on:
        head.append(
            r.choice(
                [
                    "Bad Header: x",
                    "X-Ctl: a\x01b",
                    ": empty",
                    "Upgrade: websocket",
                    "Transfer-Encoding: gzip",
                    "X-Hi: \xe9\xff",
                    "Max-Forwards: 0",
                    "Accept: */*",
                ]
            )
        )
    steps, size = [], 0
    bodied = method in ("POST", "PUT", "PATCH") or r.random() < 0.04
    if bodied:
        size = r.choice(SIZES)
        chunked = not http10 and r.random() < 0.4
        head.append("Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}")
        expect = not http10 and r.random() < 0.08
        if expect:
            head.append("Expect: 100-continue")
        steps = body_steps(r, size, chunked)
        if expect:
            steps.insert(0, ["pause", 40])
    if r.random() < 0.3:
        first, rest = head[0], head[1:]
        r.shuffle(rest)
        head = [first, *rest]
    text = "\r\n".join(head) + "\r\n\r\n"
    return method, chop(r, text) + steps


def answer(r, method):
    """Steps of one server for one request, and what follows: keep, fin or rst."""
    roll = r.random()
    if CALM.on:
        roll = max(roll, 0.07)
    if roll < 0.04:
        return {"early": r.random() < 0.3, "steps": [], "end": r.choice(["fin", "rst"])}
    if roll < 0.055:
        return {
            "early": False,
            "steps": [
                [
                    "send",
                    r.choice(
                        [
                            "garbage\r\n\r\n",
                            "HTTP/1.1 20 OK\r\n\r\n",
                            "HTTP/1.1 200 OK\r\nBad Header: x\r\n\r\n",
                            "\r\n\r\n",
                            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
                            "HTTP/1.1 200 OK\r\nX-Long: " + "y" * 70000 + "\r\n\r\n",
                            "SSH-2.0-x\r\n",
                            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                        ]
                    ),
                ]
            ],
            "end": "fin",
        }
    if roll < 0.065:
        return {"early": False, "steps": [["pause", 2600]], "end": "fin"}
    status = r.choice([200] * 12 + [201, 204, 206, 301, 302, 304, 400, 401, 404, 404, 500, 502, 503, 503, 999])
    version = "1.0" if r.random() < 0.08 and not CALM.on else "1.1"
    head = [f"HTTP/{version} {status} " + r.choice(["OK", "Reason Phrase", ""])]
    if r.random() < 0.5:
        head.append("X-B: " + r.choice(["foo", "one, two", "", "k1", "k2", "z" * 300]))
    if r.random() < 0.3:
        head.append(
            "Set-Cookie: "
            + r.choice(
                ["SRV=own; path=/", "SRV=ck1", "S=abc; path=/", "S=def", "SRV=", "SRV=own~x; Path=/; HttpOnly", "T=1"]
            )
        )
        if r.random() < 0.3:
            head.append("Set-Cookie: " + r.choice(["SRV=again; path=/", "S=zzz", "U=2"]))
    if r.random() < 0.3:
        head.append(
            r.choice(
                [
                    "Server: Fake/1",
                    "Content-Type: text/html",
                    "Cache-Control: public",
                    "Cache-control: no-cache",
                    "Vary: *",
                    "Keep-Alive: timeout=5",
                    "X-R1: r",
                ]
            )
        )
    if r.random() < 0.06:
        head.append("X-Long: " + "y" * r.choice([1000] if CALM.on else [1000, 2800, 3500, 7000, 14000, 15300, 16000]))
    steps, end = [], "keep"
    bodiless = method == "HEAD" or status in (204, 304)
    size = r.choice(SIZES)
    kind = r.choice(["cl"] * 6 + ["chunked"] * 4 + ["close"] + ["short"] * (r.random() < 0.3))
    if bodiless:
        if status != 204 and r.random() < 0.7:
            head.append(f"Content-Length: {size}")
    elif kind == "chunked" and version == "1.1":
        head.append("Transfer-Encoding: chunked")
        steps = body_steps(r, size, True)
    elif kind in ("cl", "chunked"):
        head.append(f"Content-Length: {size}")
        steps = body_steps(r, size, False)
    elif kind == "close":
        steps, end = body_steps(r, size, False), "fin"
    else:
        head.append(f"Content-Length: {size + 10}")
        steps, end = [*body_steps(r, size, False), ["pause", 10]], r.choice(["fin", "fin", "rst"])
    if end == "keep" and (version == "1.0" or r.random() < 0.12):
        end = "fin"
        if r.random() < 0.7:
            head.append("Connection: close")
    if end == "fin" and r.random() < 0.5:
        head.append("Connection: close")
    if CALM.on:
        head = [x for x in head if x != "Connection: close"]
    before = []
    if r.random() < 0.06 and not CALM.on and method != "HEAD":
        before = [
            [
                "send",
                r.choice(
                    [
                        "HTTP/1.1 100 Continue\r\n\r\n",
                        "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
                        "HTTP/1.1 102 Processing\r\n\r\n",
                        "HTTP/1.1 100 Continue\r\n\r\n" * r.choice([2, 50, 600]),
                    ]
                ),
            ]
        ] + ([["pause", 20]] if r.random() < 0.5 else [])
    if r.random() < 0.12:
        before = [["pause", r.choice([10, 60, 150])], *before]
    return {
        "early": r.random() < 0.07 and not CALM.on,
        "steps": before + chop(r, "\r\n".join(head) + "\r\n\r\n", 0.8) + steps,
        "end": end,
    }


def session(r, index, fronts):
    front = r.randrange(len(fronts))
    what = fronts[front]
    steps, methods, plans = [], [], {}
    if what["proxy"]:
        src = r.choice(["10.9.8.7", "192.0.2.1", "127.0.0.1"])
        steps.append(
            [
                "send",
                r.choice(
                    [
                        f"PROXY TCP4 {src} 10.0.0.1 1234 80\r\n",
                        f"PROXY TCP4 {src} 10.0.0.1 1234 80\r\n",
                        "PROXY UNKNOWN\r\n",
                        "PROXY TCP6 ::1 ::2 1 2\r\n",
                        "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\x01\x02\x03\x0a\0\0\1\x04\xd2\0P",
                        "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
                        *(["NOPROXY\r\n"] if r.random() < 0.1 else []),
                    ]
                ),
            ]
        )
        if r.random() < 0.2:
            steps.append(["pause", 10])
    http10 = r.random() < 0.1 and not CALM.on
    count = r.choice([1, 1, 1, 2, 2, 3, 4, 6])
    pipelined = r.random() < 0.45
    for n in range(count):
        plan = f"{index}.{n}"
        method, one = request(r, plan, http10, n == count - 1)
        methods.append(method)
        plans[plan] = [answer(r, method) for _ in range(r.choice([1, 1, 2, 3]))]
        if what["mode"] == "tcp" or r.random() < 0.5:
            plans[plan] = [a for a in plans[plan] if a["steps"]] or [
                {"early": False, "steps": [["send", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]], "end": "keep"}
            ]
        steps += one
        if n < count - 1 and not (pipelined and r.random() < 0.9):
            steps.append(["wait", n + 1])
            if r.random() < 0.1:
                steps.append(["pause", r.choice([50, 350])])
    if r.random() < 0.12:  # the end of a large upload and what follows it arrive in one read
        size, tail = (
            r.choice([600000, 2000000]),
            r.choice([1, 100, 5000, 15000, 17000, 40000, 60000, 90000, 100000, 120000, 131000]),
        )
        plan, left, more = (
            f"{index}.big",
            size - tail,
            [
                ["send", f"POST /big HTTP/1.1\r\nHost: a\r\nX-Plan: {index}.big\r\nContent-Length: {size}\r\n\r\n"],
                ["pause", 40],
            ],
        )
        plans[plan] = [
            {"early": False, "steps": [["send", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"]], "end": "keep"}
        ]
        while left:
            more.append(["fill", min(left, 262144)])
            left -= more[-1][1]
        at = 1 if what["proxy"] and steps and steps[0][0] == "send" else 0
        steps[at:at] = [*more, ["pause", 120], ["fill", tail]]
        methods.insert(0, "POST")
        for step in steps:
            if step[0] == "wait":
                step[1] += 1
    roll = r.random()
    if roll < 0.05 and len(steps) > 1:
        steps = [*steps[: r.randrange(1, len(steps))], ["pause", 80], [r.choice(["fin", "rst"])]]
    elif roll < 0.09:
        steps += [["fin"]]
    elif roll < 0.12:
        steps += [["pause", 60], ["rst"]]
    elif roll < 0.14:
        steps = [["pause", 30], [r.choice(["fin", "rst"])]]
    return {"front": front, "methods": methods, "steps": steps, "raw": what["mode"] == "tcp"}, plans
