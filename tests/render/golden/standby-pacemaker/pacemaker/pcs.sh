#!/bin/sh
# Written by haptk from cluster.toml; change that file and run `haptk apply`.
# Run once on one node of the running cluster, after reading.
set -eu
# Nobody is fenced: AWS lets one node hold an address, so two that believe to be alone damage nothing. With fencing on and
# no fence device Pacemaker would start nothing.
pcs property set no-quorum-policy=stop stonith-enabled=false
pcs resource defaults update resource-stickiness=1000 migration-threshold=1 failure-timeout=5min

# web-a: 203.0.113.10
pcs resource create eip-web-a ocf:haptk:eip address=203.0.113.10 \
    op start timeout=30s op stop timeout=30s op monitor interval=10s timeout=10s
pcs constraint location eip-web-a prefers lb1=200
pcs constraint location eip-web-a prefers lb2=150

# The proxy runs on every node, and an address only where it runs.
pcs resource create proxy systemd:haproxy op monitor interval=6s clone
pcs constraint colocation add eip-web-a with proxy-clone INFINITY
pcs constraint order proxy-clone then eip-web-a
