"""The name of the tier in DNS: asking servers for it, and changing it at Route 53 or by dynamic update."""
