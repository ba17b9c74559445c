"""The pruning rules: a file for each rule, or for two similar rules."""
