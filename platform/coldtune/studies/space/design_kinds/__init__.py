"""The kinds of ablation designs: a file for each kind. `registry.py` lists them."""
