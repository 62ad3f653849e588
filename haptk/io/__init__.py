"""Thin shells around the world: the clock, files, signals, sd_notify, UDP, probes and the control socket. No decisions."""
