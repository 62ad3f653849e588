"""Bytes of strangers: the only place of the compiled data path where memory is reached through pointers."""
