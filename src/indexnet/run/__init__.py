"""One run: compose, freeze, fit, test, record; and what people do with the result."""
