"""The paper's published numbers and the tables and texts that compare with them."""
