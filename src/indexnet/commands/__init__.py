"""One module per subcommand: HELP, ``configure(parser)``, ``main(args)`` -> exit code. No command imports another."""
