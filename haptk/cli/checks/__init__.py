"""The options of `haptk check`, one module per kind, and what they share. The looking itself is in haptk.checks."""
