"""Whom clients of HAProxy find here: the name and the version by which they recognise what they may ask.

Ansible's module, haproxyadmin, hatop and exporters read `Name` and `Version` of `show info` and refuse, or leave half of
their commands out, where these are not HAProxy's. So haptk says the version of HAProxy whose language it speaks, with
its own behind it, as distributions do (docs/decisions/0009-what-clients-recognise.md).
"""

import haptk

NAME = "HAProxy"
SPEAKS = "2.6.12"  # the HAProxy that the differential tests hold haptk against
VERSION = f"{SPEAKS}-haptk-{haptk.__version__}"
RELEASED = haptk.__released__
