"""The gallery of degradations: its entries, sheets and page."""
