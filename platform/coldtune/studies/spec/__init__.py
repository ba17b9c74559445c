"""The specification of a study, how it is built from YAML and flags, and its folder."""
