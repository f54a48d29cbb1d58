"""Words in, words out: options, exit codes, tables. No logic."""
