"""HAProxy's peers protocol 2.1, which replicates stick tables between balancers. Pure: bytes in, bytes out, and `now`.

wire.py knows the bytes, updates.py the entries of one table on one connection (twin of _fast/peerwire.pyx), session.py
one connection, node.py who connects to whom and from whom a fresh process learns.
"""
