"""What people and machines read: rich text, JSON lines, monitoring-plugin output, HTML. Commands report, this package renders."""
