"""One module per kind of check: what is looked at and what the monitoring system is told.

A module here offers one function that returns a `base.Check`: a name and a `look(timeout_s)` that blocks at most that
long and returns a `Finding`. It never raises for what the checked thing does, opens everything itself and keeps nothing
between two looks. `runner` runs any number of them side by side inside one deadline; `setfile` reads a node's checks.

Not here: options and output (haptk.cli.checks), rise and fall (haptk.core.health), the probes themselves (haptk.io).
Modules are imported only when their kind is asked for, and import dns, asyncio, boto3 and ssl inside functions.
"""
