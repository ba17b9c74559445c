"""The numbers that the paper prints, and the tables that compare a study with them."""
