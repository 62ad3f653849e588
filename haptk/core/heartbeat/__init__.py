"""The heartbeat core: who is alive, who holds what, and what to say to the peer. Pure: five verbs and `now`.

`wire` frames and fields, `auth` digests, `sequence` what was missed, `peers` who is alive, `tables` every state
machine as data, `holdings` our groups, `grants` their leases, `standby` the planned move, `resources` the negotiation,
`node` all together.
Compatible with Linux-HA heartbeat 3.0.6 on the wire. Nothing here reads a clock, socket, file or random source.
"""
