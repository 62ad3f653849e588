"""Who is alive and who should hold the resources: wire format, authentication, links, peers and the resource negotiation, all under virtual time."""
