"""`show activity` and `show peers`: what the threads do, and what became of the tables' replication."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from haptk.proxy.runtime.sessions import NEVER, human
from haptk.proxy.runtime.world import World

# HAProxy's lines; those without a counter here have no meaning (run queues, pools, pollers) and stay 0 there too.
ACTIVITY = (
    ("ctxsw", ""), ("tasksw", ""), ("empty_rq", ""), ("long_rq", ""), ("loops", "loops"), ("wake_tasks", ""),
    ("wake_signal", ""), ("poll_io", "events"), ("poll_exp", "expired"), ("poll_drop_fd", ""), ("poll_skip_fd", ""),
    ("conn_dead", ""), ("stream_calls", ""), ("pool_fail", ""), ("buf_wait", ""), ("cpust_ms_tot", ""),
    ("cpust_ms_1s", ""), ("cpust_ms_15s", ""), ("avg_loop_us", ""), ("accepted", "connections"), ("accq_pushed", ""),
    ("accq_full", ""), ("accq_ring", ""), ("fd_takeover", ""),
)  # fmt: skip


def activity(world: World) -> str:
    """The sum over the workers, and the share of each where there are several."""
    each = world.engine.activity()
    lines = [f"thread_id: 1 (1..{len(each)})\n", f"date_now: {world.wall():.6f}\n"]
    for name, counter in ACTIVITY:
        values = [int(one.get(counter, 0)) for one in each]
        shares = f" [ {' '.join(map(str, values))} ]" if len(values) > 1 else ""
        lines.append(f"{name}: {sum(values)}{shares}\n")
    return "".join(lines)


def peers(world: World, args: list[str]) -> str:
    """`show peers [dict|-] [SECTION]`. There is no dictionary of this process to show: each stream has its own."""
    rest = args[1:] if args[:1] in (["dict"], ["-"]) else args
    chosen = [one for one in world.peerings if not rest or one.section.name == rest[0]]
    if rest and not chosen:
        return "No such peers\n"
    return "".join(_section(one.report(), one) for one in chosen)


def _section(report: dict[str, Any], peering: Any) -> str:
    began = datetime.fromtimestamp(report["began"]).astimezone()
    lines = [
        f"{id(peering):#x}: [{began:%d/%b/%Y:%H:%M:%S}] id={report['section']} disabled=0 state={report['state']!r}"
    ]
    for one in report["peers"]:
        here = one["name"] == report["local"]
        kind = "local,inactive" if here else "remote,active"
        age = human(int(one["age_s"] * 1000)) if one["age_s"] >= 0 else NEVER
        lines.append(f"  {one['name']}: id={one['name']}({kind}) addr={one['address']} last_status={one['status']}")
        lines.append(f"        last_hdshk={age} heartbeat={one['heartbeat']} new_conn={one['connections']}")
        if here:
            continue
        lines.append("        shared tables:")
        lines += [
            f"          local_id={at} id={name} update={update} last_acked={acked}"
            for at, (name, update, acked) in enumerate(one["tables"], 1)
        ]
    return "\n".join(lines) + "\n"
