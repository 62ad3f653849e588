"""The address agent: observe, plan, act, observe again, with three states (ours, not ours, unknown and why)."""
