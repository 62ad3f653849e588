"""The data plane of the sticky path in Cython without the GIL. The .pxd files are the table of contents."""
