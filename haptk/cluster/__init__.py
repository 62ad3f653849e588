"""What the user declares: the frozen structs of cluster.toml, their loading and their rules. No I/O beyond reading that file's text from a caller."""
