"""Train, sample, measure: the stages of a trial, each keyed by everything that determines its result."""
