"""What matting data sets share: foregrounds with alpha, backgrounds, and what is composed of them."""

from indexnet.data.matting.foregrounds import Foreground, check_foregrounds, pair_foregrounds, read_foreground

__all__ = ["Foreground", "check_foregrounds", "pair_foregrounds", "read_foreground"]
