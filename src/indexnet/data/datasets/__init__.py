"""One module per data set; a new file here and one in ``conf/data`` is a new data set."""

from indexnet.core.registry import import_modules

import_modules(__name__, __path__)
