"""From what is declared to what is on disk: a plan, its proof by the real programs, and a change that survives an interruption."""
