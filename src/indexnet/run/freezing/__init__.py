"""How a composed configuration becomes that of one run: what it names is checked, what it leaves open is settled."""
