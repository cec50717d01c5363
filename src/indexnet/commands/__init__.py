"""One module per subcommand: HELP, ``configure(parser)`` and ``main(args)``. No command imports another."""
