"""Builds the compiled parts; everything else about the package stands in pyproject.toml.

HAPTK_NO_FAST=1 skips the extensions; HAPTK_REQUIRE_FAST=1 turns a failed compilation into a failed
installation. With neither, a machine without a compiler still gets a working haptk on the reference path.
HAPTK_FAST_CFLAGS is appended to the compiler's options (sanitizers, -O1 while developing). The extensions are hardened
as Debian hardens its own programs (dpkg-buildflags with hardening=+all).
HAPTK_CHECKED=1 verifies every bound of the data path and names the source line that broke one (docs/decisions/0008).
"""

import os
import platform
import shlex
from pathlib import Path

from setuptools import Extension, setup

REQUIRED = os.environ.get("HAPTK_REQUIRE_FAST") == "1"
SKIPPED = os.environ.get("HAPTK_NO_FAST") == "1"
CORES = os.cpu_count() or 1
CFLAGS = shlex.split(os.environ.get("HAPTK_FAST_CFLAGS", ""))
CHECKED = os.environ.get("HAPTK_CHECKED") == "1"
TRACED = os.environ.get("HAPTK_TRACE_FAST") == "1"  # line tracing for coverage; slow, never for production


# no executable or writable surprises: canaries, checked copies, no jumps into the middle, tables that are read-only
HARDENED = ["-fstack-protector-strong", "-fstack-clash-protection", "-Wformat", "-Werror=format-security"]
if platform.machine() in ("x86_64", "i686", "amd64"):
    HARDENED.append("-fcf-protection")
if not any(
    flag.startswith(("-fsanitize", "-O0")) for flag in CFLAGS
):  # sanitizers have checks of their own, -O0 has none
    HARDENED += ["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]
LINKED = ["-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"]


def extensions():
    sources = sorted(Path("haptk/_fast").rglob("*.pyx"))
    if SKIPPED or not sources:
        return []
    from Cython.Build import cythonize

    headers = [str(header) for header in sorted(Path("haptk/_fast").rglob("*.h"))]

    modules = [
        Extension(
            ".".join(source.with_suffix("").parts),
            [str(source)],
            extra_compile_args=[
                "-O3",
                "-g",
                "-fno-strict-aliasing",
                "-fvisibility=hidden",
                "-pthread",
                *HARDENED,
                *CFLAGS,
            ],
            extra_link_args=["-pthread", *LINKED],
            include_dirs=["haptk/_fast"],
            depends=headers,
            define_macros=[("CYTHON_TRACE_NOGIL", "1")] * TRACED + [("HAPTK_CHECKED", "1")] * CHECKED,
            optional=not REQUIRED,
        )
        for source in sources
    ]
    return cythonize(
        modules,
        compiler_directives={
            "language_level": 3,
            "binding": True,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "freethreading_compatible": True,
            "linetrace": TRACED,
        },
        nthreads=CORES,
        show_all_warnings=False,
        emit_linenums=CHECKED,
    )


setup(ext_modules=extensions(), options={"build_ext": {"parallel": CORES}})
