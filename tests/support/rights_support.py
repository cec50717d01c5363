"""What is done here by somebody whose rights end, as root's do not."""

from __future__ import annotations

import ctypes
import sys
from concurrent.futures import ThreadPoolExecutor


def give_up_rights():
    """Let this thread look at and write no more than permissions say (CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH)."""
    if sys.platform == "linux":
        words = ctypes.c_uint32 * 6
        header, held = (ctypes.c_uint32 * 2)(0x20080522, 0), words()
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.capget(header, held) == 0
        kept = words(*(value & ~0b110 if place < 3 else value for place, value in enumerate(held)))
        assert libc.capset(header, kept) == 0


def without_rights(function, *arguments):
    """Call a function in a thread without them, which is how Linux gives rights; return or raise what it does."""
    with ThreadPoolExecutor(1, initializer=give_up_rights) as pool:
        return pool.submit(function, *arguments).result()
