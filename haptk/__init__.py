"""haptk keeps a self-run load-balancer tier on AWS alive.

What lives where: `cluster` what the user declares, `formats` what the user already has, `core` what is decided
(no I/O, no clock), `render` what is written, `aws` and `io` what touches the world, `eip`, `heartbeat` and `proxy`
the three daemons and agents, `_fast` the compiled data path, `lab` a region on one machine, `report` what people
and machines read, `cli` one file per command. This module holds the version and imports nothing.
"""

__version__ = "0.1.0"
__released__ = "2026/12/01"  # the day of this version, for `show info`
