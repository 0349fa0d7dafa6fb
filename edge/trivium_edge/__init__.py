"""The edge gateway: serves the page, runs small models, and asks the cloud for the rest."""
