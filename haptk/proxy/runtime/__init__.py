"""HAProxy's runtime API (`stats socket`): dialog.py speaks it, commands.py obeys, world.py looks at the engine, shell.py serves.

Everything but shell.py is pure: text in, text out, so that each answer can be compared with HAProxy's own.
"""
