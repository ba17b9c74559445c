"""The pruning rules: one file for each rule, or for two close relatives."""
