"""The gallery of degradations: its images, sheets and page."""
