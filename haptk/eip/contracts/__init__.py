"""Thin adapters that say the agent's three states in the words of Heartbeat v1, LSB, OCF and keepalived."""
