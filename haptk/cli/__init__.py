"""The command line: one file per command. This module is the table of commands and imports nothing else.

`COMMANDS` maps a name to the attribute that implements it and to its one-line help, so that `haptk --help` and TAB
need no command's module. A test compares each line with the command's own short help.
"""

COMMANDS: dict[str, tuple[str, str]] = {
    "apply": ("haptk.cli.apply:apply", "Make this machine what cluster.toml declares."),
    "capacity": ("haptk.cli.capacity:capacity", "Say how many balancers a load needs and what losses it survives."),
    "check": ("haptk.cli.check:check", "Judge a service, a daemon or this node as a monitoring plugin does."),
    "completion": ("haptk.cli.completion:completion", "Print the completion script for a shell."),
    "diff": ("haptk.cli.diff:diff", "Show what on this machine differs from cluster.toml."),
    "dns": ("haptk.cli.dns:dns", "Show, check and change the records of the tier."),
    "eip": ("haptk.cli.eip:eip", "Hold, release and show an Elastic IP from this node."),
    "elb": ("haptk.cli.elb:elb", "Plan, make, watch and compare AWS's own load balancer."),
    "generate": ("haptk.cli.generate:generate", "Print configuration for the programs around haptk."),
    "heartbeat": ("haptk.cli.heartbeat:heartbeat", "Watch a peer and take over its resources when it dies."),
    "init": ("haptk.cli.init:init", "Write a cluster.toml by flags, questions or existing files."),
    "lab": ("haptk.cli.lab:lab", "Bring a region up on this machine and fail it over."),
    "lease": ("haptk.cli.lease:lease", "Share addresses among a pool of nodes by leases in DynamoDB."),
    "proxy": ("haptk.cli.proxy:proxy", "Run the sticky HTTP proxy on a haproxy.cfg."),
}
