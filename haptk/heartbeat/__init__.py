"""The heartbeat daemon: the shell that gives core.heartbeat its sockets, timers, disk and resources."""
